//! Sigma's strings: wildcards, escapes, and comparing without regard to case.
//!
//! `*` is any run of characters, `?` exactly one, `\` takes the meaning from `*`, `?` and `\` and is itself before
//! anything else. Case is compared by Unicode's simple folding, so that one character always matches one character.

/// One step of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// This character; folded unless the pattern is cased.
    Char(char),
    /// Any one character.
    One,
    /// Any run of characters.
    Run,
    /// Any of the characters that stand for the dash or slash before an option.
    Dash,
}

/// What `windash` takes for one another.
const DASHES: [char; 5] = ['-', '/', '\u{2013}', '\u{2014}', '\u{2015}'];

/// A compiled string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    tokens: Vec<Token>,
    cased: bool,
}

impl Pattern {
    /// Reads wildcards and escapes.
    pub fn parse(text: &str, cased: bool) -> Pattern {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\\' => {
                    let escaped = chars.next_if(|next| matches!(next, '*' | '?' | '\\'));
                    tokens.push(Token::Char(escaped.unwrap_or('\\')));
                }
                '*' => push_run(&mut tokens),
                '?' => tokens.push(Token::One),
                c => tokens.push(Token::Char(if cased { c } else { fold(c) })),
            }
        }
        Pattern { tokens, cased }
    }

    /// Text without wildcards.
    pub fn literal(text: &str, cased: bool) -> Pattern {
        let tokens = text.chars().map(|c| Token::Char(if cased { c } else { fold(c) })).collect();
        Pattern { tokens, cased }
    }

    /// Whether it has wildcards.
    pub fn has_wildcards(&self) -> bool {
        self.tokens.iter().any(|token| !matches!(token, Token::Char(_)))
    }

    pub fn is_cased(&self) -> bool {
        self.cased
    }

    /// What stands there, wildcards left out; folded unless cased.
    pub fn letters(&self) -> String {
        let char = |token: &Token| match token {
            Token::Char(c) => Some(*c),
            _ => None,
        };
        self.tokens.iter().filter_map(char).collect()
    }

    /// The longest text that stands in everything it matches; folded unless cased.
    pub fn longest_literal(&self) -> String {
        let runs = self.tokens.split(|token| !matches!(token, Token::Char(_)));
        let longest = runs.max_by_key(|run| run.len()).unwrap_or_default();
        Pattern { tokens: longest.to_vec(), cased: self.cased }.letters()
    }

    /// The text with which everything begins that it matches, folded unless cased; and whether that is all.
    pub fn beginning(&self) -> (String, bool) {
        let end = self.tokens.iter().position(|token| !matches!(token, Token::Char(_)));
        let tokens = self.tokens[..end.unwrap_or(self.tokens.len())].to_vec();
        (Pattern { tokens, cased: self.cased }.letters(), end.is_none())
    }

    /// Any run before it.
    pub fn with_run_before(mut self) -> Pattern {
        if self.tokens.first() != Some(&Token::Run) {
            self.tokens.insert(0, Token::Run);
        }
        self
    }

    /// Any run after it.
    pub fn with_run_after(mut self) -> Pattern {
        push_run(&mut self.tokens);
        self
    }

    /// Every `-` and `/` that begins an option (not after, but before a word character) stands for all of [`DASHES`].
    pub fn with_any_dash(mut self) -> Pattern {
        let word = |token: Option<&Token>| matches!(token, Some(Token::Char(c)) if c.is_alphanumeric() || *c == '_');
        for index in 0..self.tokens.len() {
            let is_dash = matches!(self.tokens[index], Token::Char('-' | '/'));
            let after_word = index > 0 && word(self.tokens.get(index - 1));
            if is_dash && !after_word && word(self.tokens.get(index + 1)) {
                self.tokens[index] = Token::Dash;
            }
        }
        self
    }

    /// Whether the whole text is of this form. Backtracks to the last run only, so the cost is at most the product of
    /// the two lengths.
    pub fn matches(&self, text: &str) -> bool {
        let mut rest = text.chars();
        let mut step = 0;
        // Where to go on after a failure: the step after the last run, and the text that this run has not taken yet.
        let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            if self.tokens.get(step) == Some(&Token::Run) {
                step += 1;
                retry = Some((step, rest.clone()));
                continue;
            }
            let Some(c) = rest.next() else { break };
            let c = if self.cased { c } else { fold(c) };
            if self.tokens.get(step).is_some_and(|token| token.takes(c)) {
                step += 1;
                continue;
            }
            let Some((after, from)) = &mut retry else { return false };
            from.next();
            (step, rest) = (*after, from.clone());
        }
        self.tokens[step..].iter().all(|token| *token == Token::Run)
    }
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Token::Char(own) => *own == c,
            Token::One => true,
            Token::Dash => DASHES.contains(&c),
            Token::Run => false,
        }
    }
}

fn push_run(tokens: &mut Vec<Token>) {
    if tokens.last() != Some(&Token::Run) {
        tokens.push(Token::Run);
    }
}

/// Unicode simple case folding: characters that differ in case only become one. Through the upper case, because some
/// letters have two lower cases (sigma, long s); the dotless i is a letter of its own.
pub fn fold(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    if c == '\u{131}' {
        return c;
    }
    one(one(c, char::to_uppercase), char::to_lowercase)
}

fn one<I: Iterator<Item = char>>(c: char, change: impl Fn(char) -> I) -> char {
    let mut changed = change(c);
    match (changed.next(), changed.next()) {
        (Some(single), None) => single,
        _ => c,
    }
}

/// A text folded for comparing.
pub fn fold_text(text: &str) -> String {
    let mut folded = String::new();
    fold_into(text, &mut folded);
    folded
}

/// Appends a text folded.
pub fn fold_into(text: &str, out: &mut String) {
    if text.is_ascii() {
        let start = out.len();
        out.push_str(text);
        if let Some(added) = out.get_mut(start..) {
            added.make_ascii_lowercase();
        }
    } else {
        out.extend(text.chars().map(fold));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_escape_table_of_the_specification() {
        for (pattern, matching, other) in [
            (r"a\x", r"a\x", "ax"),
            (r"a\\x", r"a\x", r"a\\x"),
            (r"\*", "*", "a"),
            (r"\\*", r"\abc", "abc"),
            (r"\\\*", r"\*", r"\x"),
            (r"\\\\", r"\\", r"\"),
            (r"a\", r"a\", "a"),
            (r"a?c", "abc", "ac"),
            (r"a\?c", "a?c", "abc"),
            ("a*b*c", "axxbyybc", "axxbyyb"),
            ("*", "", "\0\0never"),
            ("", "", "x"),
            ("?", "é", ""),
        ] {
            let compiled = Pattern::parse(pattern, false);
            assert!(compiled.matches(matching), "{pattern} {matching}");
            if !other.contains("never") {
                assert!(!compiled.matches(other), "{pattern} {other}");
            }
        }
    }

    #[test]
    fn decision_13_case_is_folded_by_unicode_simple_folding() {
        for (pattern, text, expected) in [
            ("ΑΣ", "ας", true),
            ("STRASSE", "straße", false),
            ("\u{212a}", "k", true),
            ("İ", "i", false),
            ("I", "\u{131}", false),
            ("ſ", "S", true),
        ] {
            assert_eq!(Pattern::parse(pattern, false).matches(text), expected, "{pattern} {text}");
        }
        assert!(!Pattern::parse("A", true).matches("a"));
        // The regex crate folds by Unicode's own table: both must agree on every character that has case. Above are
        // letters that are so new that the crate and the standard library know different ones.
        for c in (0..0xa7c0).chain(0x1_0400..0x1_0500).filter_map(char::from_u32) {
            for other in [fold(c), one(c, char::to_uppercase), one(c, char::to_lowercase)] {
                if other != c {
                    let regex = regex::Regex::new(&format!("(?i)^{}$", regex::escape(&c.to_string()))).unwrap();
                    assert_eq!(regex.is_match(&other.to_string()), fold(c) == fold(other), "{c:?} {other:?}");
                }
            }
        }
    }

    #[test]
    fn any_dash_stands_before_words_only() {
        let pattern = Pattern::parse("cmd -foo /bar a-b", false).with_any_dash();
        assert!(pattern.matches("cmd /foo \u{2014}bar a-b"));
        assert!(!pattern.matches("cmd -foo /bar a/b"));
    }

    proptest::proptest! {
        #[test]
        fn wildcards_agree_with_regular_expressions(pattern in "[ab*?\\\\]{0,8}", text in "[abAB*\\\\]{0,10}") {
            let mut regex = "(?is)^".to_owned();
            let mut chars = pattern.chars().peekable();
            while let Some(c) = chars.next() {
                match c {
                    '*' => regex.push_str(".*"),
                    '?' => regex.push('.'),
                    '\\' => {
                        let next = chars.next_if(|next| matches!(next, '*' | '?' | '\\'));
                        regex.push_str(&regex::escape(&next.unwrap_or('\\').to_string()));
                    }
                    c => regex.push(c),
                }
            }
            regex.push('$');
            let expected = regex::Regex::new(&regex).unwrap().is_match(&text);
            assert_eq!(Pattern::parse(&pattern, false).matches(&text), expected);
        }
    }
}
