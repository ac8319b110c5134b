//! Texts with placeholders: `{user_id} created a rule that forwards to {Parameters.ForwardTo}`. `{a|b}` is the first of
//! several fields that has a value.
//!
//! The values are written by attackers. What comes out is for a person's eyes ([`Quoting::Plain`]) or for a shell
//! ([`Quoting::PowerShell`]), and in neither may a value act: in plain text everything that moves the cursor, breaks
//! the line or reorders the text is shown escaped; in a command each value is one single-quoted literal that cannot
//! end early. [`Template::parse_command`] refuses a command in which a placeholder stands where quoting would not
//! hold, because there the rule's author, not the value, would open the door.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemas::text::{acts, push_escaped};

/// Most values of one field in a plain text; the rest is counted.
const VALUES_SHOWN_MAX: usize = 5;

/// Longest name of a placeholder. Microsoft's longest paths are under 100 characters.
const NAME_LENGTH_MAX: usize = 200;

/// For whom a text is rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quoting {
    /// A person.
    Plain,
    /// A PowerShell prompt.
    PowerShell,
}

/// A parsed text.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    /// The first of these that has a value.
    Field(Vec<String>),
}

/// Why a text is not a template: the rule author's mistake, at a byte of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct InvalidTemplate {
    pub offset: usize,
    pub kind: InvalidTemplateKind,
}

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplateKind {
    #[error("a placeholder is not closed; a literal brace is written '{{{{'")]
    Unclosed,
    #[error("a placeholder has no name; a literal brace is written '{{{{'")]
    Empty,
    #[error("a placeholder's name holds a brace, a quote or a control character, or is too long")]
    InvalidName,
    #[error("a placeholder inside quotes: harrier quotes the value itself, remove the quotes around it")]
    InsideQuotes,
    #[error("a placeholder directly after a backtick, which would undo its quoting")]
    AfterBacktick,
    #[error(
        "here-strings, block comments and '$(' inside double quotes are not allowed in a command with placeholders"
    )]
    Unsupported,
}

impl Template {
    /// Parses a text. `{name}` is a placeholder, `{{` and `}}` are literal braces; a lone `}` is itself.
    pub fn parse(text: &str) -> Result<Template, InvalidTemplate> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let offset = text.len() - rest.len() + at;
            let tail = &rest[at..];
            if let Some(after) = tail.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = tail.strip_prefix('}') {
                literal.push('}');
                rest = after.strip_prefix('}').unwrap_or(after);
            } else {
                let inner = &tail[1..];
                let Some(end) = inner.find('}') else {
                    return Err(InvalidTemplate { offset, kind: InvalidTemplateKind::Unclosed });
                };
                let names: Vec<String> = inner[..end].split('|').map(|name| name.trim().to_owned()).collect();
                for name in &names {
                    check_name(name).map_err(|kind| InvalidTemplate { offset, kind })?;
                }
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                pieces.push(Piece::Field(names));
                rest = &inner[end + 1..];
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Template { pieces })
    }

    /// Parses a PowerShell command: as [`Template::parse`], and no placeholder stands where a quoted value could act.
    pub fn parse_command(text: &str) -> Result<Template, InvalidTemplate> {
        let template = Template::parse(text)?;
        let mut shell = Shell::default();
        for piece in &template.pieces {
            match piece {
                Piece::Literal(literal) => literal.chars().for_each(|c| shell.step(c)),
                Piece::Field(names) => {
                    let kind = match shell.place {
                        _ if shell.unsupported => InvalidTemplateKind::Unsupported,
                        Place::Single | Place::Double => InvalidTemplateKind::InsideQuotes,
                        _ if shell.escaping => InvalidTemplateKind::AfterBacktick,
                        Place::Open | Place::Comment => {
                            shell.previous = '\'';
                            continue;
                        }
                    };
                    let offset = names.first().and_then(|name| text.find(&format!("{{{name}"))).unwrap_or_default();
                    return Err(InvalidTemplate { offset, kind });
                }
            }
        }
        Ok(template)
    }

    /// The names of its placeholders, in order, each as often as it occurs.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        let names = self.pieces.iter().map(|piece| match piece {
            Piece::Field(names) => names.as_slice(),
            Piece::Literal(_) => &[],
        });
        names.flatten().map(String::as_str)
    }

    /// The text with values in place of placeholders.
    pub fn render(&self, values: &BTreeMap<String, Vec<String>>, quoting: Quoting) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => out.push_str(literal),
                Piece::Field(names) => {
                    let found = names.iter().filter_map(|name| values.get(name)).find(|values| !values.is_empty());
                    let values = found.map_or(&[][..], Vec::as_slice);
                    match quoting {
                        Quoting::Plain => plain(values, &mut out),
                        Quoting::PowerShell => powershell(names.first().map_or("", String::as_str), values, &mut out),
                    }
                }
            }
        }
        out
    }
}

fn check_name(name: &str) -> Result<(), InvalidTemplateKind> {
    if name.is_empty() {
        return Err(InvalidTemplateKind::Empty);
    }
    let forbidden = |c: char| c == '{' || is_single_quote(c) || is_double_quote(c) || acts(c);
    if name.len() > NAME_LENGTH_MAX || name.contains(forbidden) {
        return Err(InvalidTemplateKind::InvalidName);
    }
    Ok(())
}

fn plain(values: &[String], out: &mut String) {
    if values.is_empty() {
        out.push_str("unknown");
        return;
    }
    for (index, value) in values.iter().take(VALUES_SHOWN_MAX).enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        if value.is_empty() {
            out.push_str("\"\"");
        }
        value.chars().for_each(|c| push_escaped(c, out));
    }
    if values.len() > VALUES_SHOWN_MAX {
        // Writing into a String cannot fail.
        let _ = write!(out, " and {} more", values.len() - VALUES_SHOWN_MAX);
    }
}

fn powershell(name: &str, values: &[String], out: &mut String) {
    if values.is_empty() {
        literal(&format!("<{name}>"), out);
    }
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        literal(value, out);
    }
}

/// One single-quoted PowerShell literal. PowerShell ends it at any of five quote characters, and takes a pair of them
/// as the second one itself, so each is doubled.
fn literal(value: &str, out: &mut String) {
    out.push('\'');
    for c in value.chars() {
        if is_single_quote(c) {
            out.push(c);
        }
        push_escaped(c, out);
    }
    out.push('\'');
}

fn is_single_quote(c: char) -> bool {
    matches!(c, '\'' | '\u{2018}' | '\u{2019}' | '\u{201a}' | '\u{201b}')
}

fn is_double_quote(c: char) -> bool {
    matches!(c, '"' | '\u{201c}' | '\u{201d}' | '\u{201e}')
}

/// Where in a PowerShell command the reader is. A sketch of PowerShell's tokenizer, on the safe side.
struct Shell {
    place: Place,
    escaping: bool,
    previous: char,
    unsupported: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Open,
    Single,
    Double,
    Comment,
}

impl Default for Shell {
    fn default() -> Shell {
        Shell { place: Place::Open, escaping: false, previous: ' ', unsupported: false }
    }
}

impl Shell {
    fn step(&mut self, c: char) {
        let previous = std::mem::replace(&mut self.previous, c);
        if std::mem::take(&mut self.escaping) {
            return;
        }
        match self.place {
            Place::Open if c == '`' => self.escaping = true,
            Place::Open if is_single_quote(c) || is_double_quote(c) => {
                self.unsupported |= previous == '@';
                self.place = if is_single_quote(c) { Place::Single } else { Place::Double };
            }
            Place::Open if c == '#' => {
                self.unsupported |= previous == '<';
                if previous.is_whitespace() || matches!(previous, ';' | '(' | '{' | '|' | '&' | ',') {
                    self.place = Place::Comment;
                }
            }
            Place::Single if is_single_quote(c) => self.place = Place::Open,
            Place::Double if c == '`' => self.escaping = true,
            Place::Double if is_double_quote(c) => self.place = Place::Open,
            Place::Double => self.unsupported |= previous == '$' && c == '(',
            Place::Comment if c == '\n' || c == '\r' => self.place = Place::Open,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str, values: &[&str], quoting: Quoting) -> String {
        let values = values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        let map = if values.is_empty() { BTreeMap::new() } else { BTreeMap::from([("v".to_owned(), values)]) };
        Template::parse(template).unwrap().render(&map, quoting)
    }

    #[test]
    fn placeholders_braces_and_several_values_render() {
        for (template, values, expected) in [
            ("a {v} b", &["x"][..], "a x b"),
            ("{{v}} {v}}", &["x"], "{v} x}"),
            ("{ v }", &["x", "y"], "x, y"),
            ("{v}", &["1", "2", "3", "4", "5", "6", "7"], "1, 2, 3, 4, 5 and 2 more"),
            ("by {v}.", &[], "by unknown."),
            ("'{v}'", &[""], "'\"\"'"),
            ("", &[], ""),
            ("{w|v}", &["x"], "x"),
            ("{v | w}", &["x"], "x"),
            ("{w|u}", &["x"], "unknown"),
        ] {
            assert_eq!(render(template, values, Quoting::Plain), expected, "{template}");
        }
        let template = Template::parse("{Parameters.Name} {a} {a}").unwrap();
        assert_eq!(template.fields().collect::<Vec<_>>(), ["Parameters.Name", "a", "a"]);
    }

    #[test]
    fn a_hostile_value_cannot_act_in_plain_text() {
        for (value, expected) in [
            ("\u{1b}[2J", "\\x1b[2J"),
            ("a\r\nfake line", "a\\r\\nfake line"),
            ("gpj.\u{202e}exe", "gpj.\\u{202e}exe"),
            ("a\u{2066}b\u{2028}c\u{feff}", "a\\u{2066}b\\u{2028}c\\u{feff}"),
            ("\u{9b}31m\0", "\\x9b31m\\x00"),
            ("{client_ip}", "{client_ip}"),
            ("Zoë 漢字 😀", "Zoë 漢字 😀"),
        ] {
            assert_eq!(render("{v}", &[value], Quoting::Plain), expected);
        }
    }

    #[test]
    fn a_hostile_value_stays_one_powershell_literal() {
        for (values, expected) in [
            (&["a@b"][..], "'a@b'"),
            (&["a", "b"], "'a', 'b'"),
            (&[], "'<v>'"),
            (&[""], "''"),
            (&["'; Remove-Mailbox x #"], "'''; Remove-Mailbox x #'"),
            (
                &["\u{2019}; evil \u{2018}\u{201a}\u{201b}"],
                "'\u{2019}\u{2019}; evil \u{2018}\u{2018}\u{201a}\u{201a}\u{201b}\u{201b}'",
            ),
            (&["a\nevil\r\u{1b}"], "'a\\nevil\\r\\x1b'"),
            (&["$(evil) `\" ${x} --%"], "'$(evil) `\" ${x} --%'"),
        ] {
            assert_eq!(render("{v}", values, Quoting::PowerShell), expected);
        }
    }

    #[test]
    fn faulty_templates_are_refused_where_they_are_faulty() {
        use InvalidTemplateKind::*;
        for (text, offset, kind) in [
            ("ab {c", 3, Unclosed),
            ("{}", 0, Empty),
            ("a{ }", 1, Empty),
            ("{a{b}", 0, InvalidName),
            ("{a'b}", 0, InvalidName),
            ("{a|}", 0, Empty),
        ] {
            assert_eq!(Template::parse(text), Err(InvalidTemplate { offset, kind }), "{text}");
        }
    }

    #[test]
    fn a_command_whose_placeholder_would_not_be_quoted_is_refused() {
        use InvalidTemplateKind::*;
        for (command, expected) in [
            ("Get-X -Identity {v}", None),
            ("Get-X -Filter \"a -eq 'b'\" -Id {v} 'it''s'", None),
            ("Get-X | Where-Object {{ $_.Id -eq {v} }}", None),
            ("# don't worry\nGet-X {v}", None),
            ("Get-X -Identity \"{v}\"", Some(InsideQuotes)),
            ("Get-X -Identity '{v}'", Some(InsideQuotes)),
            ("Get-X -Identity \u{201c}{v}\u{201d}", Some(InsideQuotes)),
            ("# don't\nGet-X 'a {v}'", Some(InsideQuotes)),
            ("Get-X `{v}", Some(AfterBacktick)),
            ("Get-X \"$(Get-Y \"{v}\")\"", Some(Unsupported)),
            ("@'\n'{v}\n'@", Some(Unsupported)),
            ("<# ' #> {v}", Some(Unsupported)),
        ] {
            assert_eq!(Template::parse_command(command).err().map(|error| error.kind), expected, "{command}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_value_leaves_its_literal(value in "\\PC*|[\u{0}-\u{ff}\u{2018}-\u{202e}']*") {
            let out = render("{v}", &[&value], Quoting::PowerShell);
            let inner: Vec<char> = out.chars().collect();
            let inner = &inner[1..inner.len() - 1];
            let mut index = 0;
            while index < inner.len() {
                assert!(!inner[index].is_control());
                if is_single_quote(inner[index]) {
                    assert_eq!(inner.get(index + 1), Some(&inner[index]));
                    index += 1;
                }
                index += 1;
            }
        }
    }
}
