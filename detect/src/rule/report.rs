//! What is wrong with rules, for the one who wrote them: a stable code, the place, what was expected, the nearest
//! valid name. All problems of all files are collected before anything is said.
//!
//! Rules are handed on between strangers, so nothing of what is quoted from them acts on the terminal that shows it.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode, SourceSpan};
use schemas::text::{acts, escape_controls};

use super::yaml::Place;

/// Most problems that are kept; a file of garbage has no more to tell.
const REPORTS_MAX: usize = 1_000;

macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident $name:literal $label:literal;)*) => {
        /// The kind of a problem. Its text is stable: scripts and documentation may refer to it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code { $($(#[$doc])* $code),* }

        impl Code {
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$code => concat!("harrier::rule::", $name)),* }
            }

            /// What is written under the place of a problem.
            fn label(self) -> &'static str {
                match self { $(Code::$code => $label),* }
            }
        }
    };
}

codes! {
    /// Not YAML.
    Syntax "syntax" "cannot be read";
    /// One of the named limits.
    Limit "limit" "too much";
    RepeatedKey "repeated_key" "the second one";
    /// A key that must be there is not.
    MissingKey "missing_key" "something is missing here";
    /// A key that means nothing here, most likely misspelt.
    UnknownKey "unknown_key" "means nothing here";
    /// A value of another type or form than its key asks for.
    InvalidValue "invalid_value" "this value";
    /// Two rules with one id or name.
    Duplicate "duplicate" "the second one";
    UnknownLogsource "unknown_logsource" "no such records";
    UnknownField "unknown_field" "no such field";
    UnknownModifier "unknown_modifier" "no such modifier";
    /// Modifiers that do not go together, or not with this value.
    InvalidModifier "invalid_modifier" "does not fit";
    /// A value that can never be compared with the field's.
    TypeMismatch "type_mismatch" "can never be equal";
    InvalidRegex "invalid_regex" "this expression";
    InvalidCondition "invalid_condition" "here";
    UnknownIdentifier "unknown_identifier" "no such search";
    /// Sigma of before 2.0; the message says what to write today.
    Legacy "legacy" "written for an older Sigma";
    /// Part of Sigma, and refused with the reason.
    Unsupported "unsupported" "not possible here";
    UnknownRule "unknown_rule" "no such rule";
    /// A placeholder that no list answers to.
    UnknownList "unknown_list" "no such list";
    InvalidTemplate "invalid_template" "this placeholder";
    InvalidTuning "invalid_tuning" "here";
}

/// One problem.
#[derive(Clone, Debug)]
pub struct Report {
    pub code: Code,
    pub file: String,
    pub place: Place,
    /// What is wrong, in one line.
    pub message: String,
    /// The valid name that is most like what stands there.
    pub nearest: Option<String>,
    /// What to do instead.
    pub help: Option<String>,
    source: Arc<NamedSource<String>>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Report {}

impl Diagnostic for Report {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code.as_str()))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&*self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = match &self.nearest {
            Some(nearest) => format!("did you mean '{nearest}'?"),
            None => self.code.label().to_owned(),
        };
        let span = SourceSpan::new(self.place.offset.into(), self.place.length);
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some(label), span))))
    }
}

/// All problems of a rule set, in the order of files and places.
#[derive(Clone, Debug, Default)]
pub struct RuleErrors {
    reports: Vec<Report>,
}

impl RuleErrors {
    pub fn reports(&self) -> &[Report] {
        &self.reports
    }

    pub fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }

    /// The problems drawn with their source lines; in colour for a terminal.
    pub fn render(&self, terminal: bool) -> String {
        let theme = if terminal { GraphicalTheme::unicode() } else { GraphicalTheme::none() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(120).with_links(false);
        let mut out = String::new();
        for report in &self.reports {
            // Writing into a String cannot fail.
            let _ = handler.render_report(&mut out, report);
            out.push('\n');
        }
        out
    }

    pub(super) fn sort(&mut self) {
        self.reports.sort_by(|a, b| (&a.file, a.place.offset).cmp(&(&b.file, b.place.offset)));
    }

    fn push(&mut self, report: Report) {
        if self.reports.len() < REPORTS_MAX {
            self.reports.push(report);
        }
    }
}

/// One plain line each: `file:line:column: message (did you mean 'x'?)`.
impl fmt::Display for RuleErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, report) in self.reports.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let Place { line, column, .. } = report.place;
            write!(f, "{}:{line}:{column}: {}", escape_controls(&report.file), report.message)?;
            if let Some(nearest) = &report.nearest {
                write!(f, " (did you mean '{nearest}'?)")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for RuleErrors {}

impl Diagnostic for RuleErrors {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.reports.iter().map(|report| report as &dyn Diagnostic)))
    }
}

/// Where the problems of one file are put. Costs nothing until there is one.
pub struct Problems<'e> {
    file: &'e str,
    text: &'e str,
    source: Option<Arc<NamedSource<String>>>,
    errors: &'e mut RuleErrors,
}

impl<'e> Problems<'e> {
    pub fn new(file: &'e str, text: &'e str, errors: &'e mut RuleErrors) -> Problems<'e> {
        Problems { file, text, source: None, errors }
    }

    /// How many problems there are so far, in all files.
    pub fn count(&self) -> usize {
        self.errors.reports.len()
    }

    /// Notes a problem.
    pub fn add(&mut self, code: Code, place: Place, message: impl Into<String>) {
        self.note(code, place, message.into(), None, None);
    }

    /// Notes a problem and what to do instead.
    pub fn add_help(&mut self, code: Code, place: Place, message: impl Into<String>, help: &str) {
        self.note(code, place, message.into(), None, Some(help.to_owned()));
    }

    /// Notes a name that is not one of the valid ones, with the nearest of them.
    pub fn add_name<'n>(
        &mut self,
        code: Code,
        place: Place,
        message: impl Into<String>,
        name: &str,
        valid: impl IntoIterator<Item = &'n str>,
    ) {
        let nearest = nearest(name, valid).map(str::to_owned);
        self.note(code, place, message.into(), nearest, None);
    }

    /// The same, with what to do if none of them is meant.
    pub fn add_name_help<'n>(
        &mut self,
        code: Code,
        place: Place,
        message: impl Into<String>,
        name: &str,
        valid: impl IntoIterator<Item = &'n str>,
        help: &str,
    ) {
        let nearest = nearest(name, valid).map(str::to_owned);
        self.note(code, place, message.into(), nearest, Some(help.to_owned()));
    }

    fn note(&mut self, code: Code, place: Place, message: String, nearest: Option<String>, help: Option<String>) {
        let (file, text, message) = (self.file, self.text, escape_controls(&message));
        let nearest = nearest.map(|name| escape_controls(&name));
        // The values of one list may all be wrong for the same reason, at the place where the list is used.
        let is_known = |last: &Report| last.file == file && last.place == place && last.message == message;
        if self.errors.reports.last().is_some_and(is_known) {
            return;
        }
        let drawn = || Arc::new(NamedSource::new(escape_controls(file), harmless(text)));
        let source = self.source.get_or_insert_with(drawn).clone();
        self.errors.push(Report { code, file: file.to_owned(), place, message, nearest, help, source });
    }
}

/// The text of a file as it is drawn: every character that acts is one that does not, of as many bytes, so that all
/// places stay what they are.
fn harmless(text: &str) -> String {
    let harmless = |c: char| match c {
        '\n' | '\t' => c,
        // Before the end of a line.
        '\r' => ' ',
        c if !acts(c) => c,
        c => match c.len_utf8() {
            1 => '?',
            2 => '\u{b7}',
            3 => char::REPLACEMENT_CHARACTER,
            _ => '\u{1f6ab}',
        },
    };
    text.chars().map(harmless).collect()
}

/// The valid name most like `name`: at most a third of its letters differ, and at least one is the same.
pub fn nearest<'n>(name: &str, valid: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let limit = (name.chars().count() / 3).clamp(1, 4);
    let lower = name.to_lowercase();
    valid
        .into_iter()
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *distance < candidate.chars().count())
        .min_by_key(|(distance, candidate)| (*distance, *candidate))
        .map(|(_, candidate)| candidate)
}

/// Edit distance: letters inserted, deleted, replaced, or two neighbours exchanged.
pub fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (row, from) in a.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, to) in b.iter().enumerate() {
            let mut least = (last[column] + usize::from(from != to)).min(last[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *from == b[column - 1] && a[row - 1] == *to {
                least = least.min(before[column - 1] + 1);
            }
            current.push(least);
        }
        before = std::mem::replace(&mut last, current);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        assert_eq!(nearest("Paramters", ["Parameters", "Path"]), Some("Parameters"));
        assert_eq!(nearest("clinet_ip", ["client_ip", "client_port"]), Some("client_ip"));
        assert_eq!(nearest("xyz", ["Parameters"]), None);
        assert_eq!(nearest("ab", ["cd"]), None);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("ab", "ba"), 1);
    }

    #[test]
    fn what_is_drawn_does_not_act_and_places_stay() {
        let (file, text) = ("a\u{1b}[2J.yml", "x\u{1b}]0;\u{9b}\u{202e}\u{e0041}é: y\r\n");
        let mut errors = RuleErrors::default();
        let place = Place { offset: text.find('é').unwrap(), length: 2, line: 1, column: 9 };
        Problems::new(file, text, &mut errors).add_help(Code::UnknownKey, place, "'\u{1b}[2J'", "none");
        for shown in [errors.to_string(), errors.render(false)] {
            assert!(!shown.chars().any(|c| c != '\n' && acts(c)), "{shown:?}");
        }
        assert_eq!(harmless(text).len(), text.len());
        assert!(errors.render(false).contains("é: y"), "{}", errors.render(false));
    }
}
