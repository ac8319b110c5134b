//! The modifiers of one line of a selection: `Field|modifier|modifier`.
//!
//! Read from left to right into what is compared ([`How`]) and flags. Every combination that Sigma does not define is
//! refused with the reason; none is guessed at.

use super::predicate::{Affix, Comparison, DatePart};
use super::report::{Code, Problems};
use super::yaml::Place;

/// What is compared.
#[derive(Clone, Debug, PartialEq)]
pub enum How {
    Text { affix: Affix, encodings: Vec<Encoding> },
    Regex { flags: Vec<char> },
    Network,
    Compare(Comparison),
    Part(DatePart, Comparison),
    Reference(Affix),
    Exists,
}

/// What is done to a text before it is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Utf16Le,
    Utf16Be,
    /// With a byte order mark, little endian.
    Utf16,
    Base64,
    /// The three forms a text can take inside longer base64.
    Base64Offset,
}

impl Encoding {
    fn is_base64(self) -> bool {
        matches!(self, Encoding::Base64 | Encoding::Base64Offset)
    }
}

/// The modifiers of one line.
#[derive(Clone, Debug, PartialEq)]
pub struct Modifiers {
    pub how: How,
    pub all: bool,
    pub cased: bool,
    pub negated: bool,
    pub any_dash: bool,
    /// `%name%` stands for the values of a list.
    pub expand: bool,
}

impl Default for Modifiers {
    /// What a line without modifiers asks.
    fn default() -> Modifiers {
        let how = How::Text { affix: Affix::Whole, encodings: Vec::new() };
        Modifiers { how, all: false, cased: false, negated: false, any_dash: false, expand: false }
    }
}

/// Every modifier and what it means, in the order of the documentation.
pub const MODIFIERS: &[(&str, &str)] = &[
    ("contains", "a part of the text; wildcards stay active"),
    ("startswith", "the beginning of the text"),
    ("endswith", "the end of the text"),
    ("all", "every listed value, not any; at least two"),
    ("cased", "with regard to case"),
    ("neq", "negates the line; holds for an absent field"),
    ("exists", "the field is there, whatever its value; alone"),
    ("re", "regular expression, found anywhere, with regard to case"),
    ("i", "after re: without regard to case"),
    ("ignorecase", "the same as i"),
    ("m", "after re: ^ and $ at every line"),
    ("multiline", "the same as m"),
    ("s", "after re: the dot takes line breaks"),
    ("dotall", "the same as s"),
    ("windash", "- or / before a word stands for both and three long dashes"),
    ("wide", "UTF-16, little endian, before base64"),
    ("utf16le", "the same as wide"),
    ("utf16be", "UTF-16, big endian, before base64"),
    ("utf16", "UTF-16 with a byte order mark, before base64"),
    ("base64", "the text in base64"),
    ("base64offset", "the text inside longer base64; with contains"),
    ("lt", "a smaller number"),
    ("lte", "a smaller number, or the same"),
    ("gt", "a greater number"),
    ("gte", "a greater number, or the same"),
    ("minute", "minute of a time, UTC"),
    ("hour", "hour of a time, UTC"),
    ("day", "day of the month of a time, UTC"),
    ("week", "ISO week of a time, UTC, 1 to 53"),
    ("month", "month of a time, UTC"),
    ("year", "year of a time, UTC"),
    ("cidr", "an address inside a network"),
    ("fieldref", "another field of the record"),
    ("expand", "%name% stands for the values of a list"),
];

/// Reads the modifiers after a field; `place` gives each one's place by its position. Problems are reported; none is
/// returned then.
pub fn parse(names: &[&str], place: &dyn Fn(usize) -> Place, problems: &mut Problems<'_>) -> Option<Modifiers> {
    let mut modifiers = Modifiers::default();
    let known = || MODIFIERS.iter().map(|(name, _)| *name);
    let mut first = true;
    for (index, name) in names.iter().enumerate() {
        if !known().any(|known| known == *name) {
            let message = match *name {
                "" => "a modifier is missing after '|'".to_owned(),
                "near" | "count" | "sum" | "min" | "max" | "avg" => {
                    format!("'{name}' is no modifier; write a correlation rule")
                }
                _ => format!("'{name}' is not a modifier"),
            };
            problems.add_name(Code::UnknownModifier, place(index), message, name, known());
            return None;
        }
        if let Err(message) = apply(&mut modifiers, name, first) {
            problems.add(Code::InvalidModifier, place(index), message);
            return None;
        }
        first &= matches!(*name, "all" | "neq" | "cased" | "expand");
    }
    if let Err(message) = check(&modifiers, names.len()) {
        problems.add(Code::InvalidModifier, place(0), message);
        return None;
    }
    Some(modifiers)
}

fn apply(modifiers: &mut Modifiers, name: &str, first: bool) -> Result<(), String> {
    let comparison = match name {
        "lt" => Some(Comparison::Less),
        "lte" => Some(Comparison::LessOrEqual),
        "gt" => Some(Comparison::Greater),
        "gte" => Some(Comparison::GreaterOrEqual),
        _ => None,
    };
    if let Some(comparison) = comparison {
        modifiers.how = match &modifiers.how {
            How::Part(part, Comparison::Equal) => How::Part(*part, comparison),
            _ if first => How::Compare(comparison),
            _ => return Err(format!("'{name}' compares numbers: only a part of a date may stand before it")),
        };
        return Ok(());
    }
    match name {
        "all" => modifiers.all = true,
        "neq" => modifiers.negated = true,
        "cased" => modifiers.cased = true,
        "windash" => modifiers.any_dash = true,
        "expand" => modifiers.expand = true,
        "contains" => affix(&mut modifiers.how, name, Affix::Contains)?,
        "startswith" => affix(&mut modifiers.how, name, Affix::StartsWith)?,
        "endswith" => affix(&mut modifiers.how, name, Affix::EndsWith)?,
        "wide" | "utf16le" => encode(&mut modifiers.how, name, Encoding::Utf16Le)?,
        "utf16be" => encode(&mut modifiers.how, name, Encoding::Utf16Be)?,
        "utf16" => encode(&mut modifiers.how, name, Encoding::Utf16)?,
        "base64" => encode(&mut modifiers.how, name, Encoding::Base64)?,
        "base64offset" => encode(&mut modifiers.how, name, Encoding::Base64Offset)?,
        "i" | "ignorecase" => flag(&mut modifiers.how, name, 'i')?,
        "m" | "multiline" => flag(&mut modifiers.how, name, 'm')?,
        "s" | "dotall" => flag(&mut modifiers.how, name, 's')?,
        _ => begin(&mut modifiers.how, name, first)?,
    }
    Ok(())
}

/// The modifiers that say what is compared, and therefore come first.
fn begin(how: &mut How, name: &str, first: bool) -> Result<(), String> {
    if !first {
        return Err(format!("'{name}' must be the first modifier"));
    }
    let part = |part| How::Part(part, Comparison::Equal);
    *how = match name {
        "re" => How::Regex { flags: Vec::new() },
        "cidr" => How::Network,
        "exists" => How::Exists,
        "fieldref" => How::Reference(Affix::Whole),
        "minute" => part(DatePart::Minute),
        "hour" => part(DatePart::Hour),
        "day" => part(DatePart::Day),
        "week" => part(DatePart::Week),
        "month" => part(DatePart::Month),
        _ => part(DatePart::Year),
    };
    Ok(())
}

fn affix(how: &mut How, name: &str, new: Affix) -> Result<(), String> {
    match how {
        How::Text { affix, .. } | How::Reference(affix) if *affix == Affix::Whole => {
            *affix = new;
            Ok(())
        }
        How::Text { .. } | How::Reference(_) => Err("only one of contains, startswith and endswith".to_owned()),
        How::Regex { .. } => Err(format!("'re' searches anywhere by itself: leave out '{name}', anchor with ^ and $")),
        _ => Err(format!("'{name}' compares text")),
    }
}

fn encode(how: &mut How, name: &str, new: Encoding) -> Result<(), String> {
    match how {
        How::Text { affix: Affix::Whole, encodings } => {
            if encodings.last().is_some_and(|last| last.is_base64() || !new.is_base64()) {
                return Err(format!("'{name}' cannot follow another encoding; the order is utf16 before base64"));
            }
            encodings.push(new);
            Ok(())
        }
        How::Text { .. } => Err(format!("'{name}' must stand before contains, startswith and endswith")),
        _ => Err(format!("'{name}' encodes text")),
    }
}

fn flag(how: &mut How, name: &str, new: char) -> Result<(), String> {
    match how {
        How::Regex { flags } => {
            flags.push(new);
            Ok(())
        }
        _ => Err(format!("'{name}' belongs to 're': write re|{name}")),
    }
}

fn check(modifiers: &Modifiers, count: usize) -> Result<(), &'static str> {
    match &modifiers.how {
        How::Text { encodings, affix } => {
            if !encodings.is_empty() && modifiers.any_dash {
                return Err("'windash' and encodings do not go together: write the forms out");
            }
            if !encodings.is_empty() && !encodings.iter().any(|encoding| encoding.is_base64()) {
                return Err("records are text: utf16 is only of use before base64 or base64offset");
            }
            if encodings.contains(&Encoding::Base64Offset) && *affix == Affix::Whole {
                return Err("'base64offset' finds a part of a value: write base64offset|contains");
            }
        }
        How::Exists if count > 1 => return Err("'exists' stands by itself"),
        How::Reference(_) if modifiers.any_dash => return Err("'windash' is for text"),
        How::Reference(_) => {}
        _ if modifiers.cased => return Err("'cased' is for text; 're' is cased unless it says i"),
        _ if modifiers.any_dash => return Err("'windash' is for text"),
        _ => {}
    }
    Ok(())
}
