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
}

const NAMES: &[&str] = &[
    "all",
    "base64",
    "base64offset",
    "cased",
    "cidr",
    "contains",
    "day",
    "dotall",
    "endswith",
    "exists",
    "expand",
    "fieldref",
    "gt",
    "gte",
    "hour",
    "i",
    "ignorecase",
    "lt",
    "lte",
    "m",
    "minute",
    "month",
    "multiline",
    "neq",
    "re",
    "s",
    "startswith",
    "utf16",
    "utf16be",
    "utf16le",
    "week",
    "wide",
    "windash",
    "year",
];

/// Reads the modifiers after a field; `place` gives each one's place by its position. Problems are reported; none is
/// returned then.
pub fn parse(names: &[&str], place: &dyn Fn(usize) -> Place, problems: &mut Problems<'_>) -> Option<Modifiers> {
    let how = How::Text { affix: Affix::Whole, encodings: Vec::new() };
    let mut modifiers = Modifiers { how, all: false, cased: false, negated: false, any_dash: false };
    let mut first = true;
    for (index, name) in names.iter().enumerate() {
        if !NAMES.contains(name) {
            let message = match *name {
                "" => "a modifier is missing after '|'".to_owned(),
                "near" | "count" | "sum" | "min" | "max" | "avg" => {
                    format!("'{name}' is no modifier; write a correlation rule")
                }
                _ => format!("'{name}' is not a modifier"),
            };
            problems.add_name(Code::UnknownModifier, place(index), message, name, NAMES.iter().copied());
            return None;
        }
        if let Err(message) = apply(&mut modifiers, name, first) {
            let code = if *name == "expand" { Code::Unsupported } else { Code::InvalidModifier };
            problems.add(code, place(index), message);
            return None;
        }
        first &= matches!(*name, "all" | "neq" | "cased");
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
        "expand" => {
            return Err("there are no lists for 'expand' yet: write the values out in a list of their own".to_owned());
        }
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
