//! The values of one line of a selection, compiled into tests for the field they are compared with.
//!
//! A value that the field could never have is a mistake, found here and not by a rule that stays silent.

use schemas::field::{FieldId, Kind};

use super::detection::{Scope, resolve};
use super::dialect::Values;
use super::modifier::{Encoding, How, Modifiers};
use super::pattern::Pattern;
use super::predicate::{Affix, Number, Test};
use super::report::{Code, Problems};
use super::yaml::{Node, Value};

/// Longest regular expression, and the most memory its compiled form may take.
const REGEX_LENGTH_MAX: usize = 4 * 1024;
const REGEX_BYTES_MAX: usize = 1024 * 1024;

/// What the value is compared with.
pub struct Target<'t> {
    /// None for keywords.
    pub name: Option<&'t str>,
    /// The field of `FIELDS`, if it is one: then its kind is known.
    pub field: Option<FieldId>,
    /// How a dialect writes the values.
    pub values: Values,
    /// Where the names of other fields are looked for.
    pub scope: &'t Scope<'t>,
}

/// Compiles one value. Problems are reported.
pub fn compile(node: &Node, modifiers: &Modifiers, target: &Target<'_>, problems: &mut Problems<'_>) -> Option<Test> {
    match check_kind(node, modifiers, target).and_then(|()| test(node, modifiers, target, problems)) {
        Ok(test) => test,
        Err((code, message)) => {
            problems.add(code, node.place, message);
            None
        }
    }
}

type Refused = (Code, String);

fn refused<T>(code: Code, message: impl Into<String>) -> Result<T, Refused> {
    Err((code, message.into()))
}

/// Whether values of the field's kind can be asked this at all.
fn check_kind(node: &Node, modifiers: &Modifiers, target: &Target<'_>) -> Result<(), Refused> {
    let Some(field) = target.field.map(FieldId::field) else {
        return Ok(());
    };
    let name = field.name;
    let kind = match field.kind {
        Kind::Text => "text",
        Kind::TextList => "a list of texts",
        Kind::Integer => "a number",
        Kind::Boolean => "true or false",
        Kind::Time => "a time",
    };
    let is_text = matches!(field.kind, Kind::Text | Kind::TextList);
    let fits = match &modifiers.how {
        How::Exists | How::Reference(_) => true,
        How::Part(..) => field.kind == Kind::Time,
        How::Compare(_) => field.kind == Kind::Integer,
        How::Network | How::Regex { .. } => is_text,
        How::Text { affix, encodings } => {
            is_text || *affix == Affix::Whole && encodings.is_empty() && !modifiers.any_dash
        }
    };
    if !fits {
        return refused(Code::TypeMismatch, format!("'{name}' is {kind}: this modifier cannot be used on it"));
    }
    if !matches!(modifiers.how, How::Text { .. }) {
        return Ok(());
    }
    let possible = match (&node.value, field.kind) {
        (Value::Null, _) | (_, Kind::Text | Kind::TextList) => true,
        (Value::Integer(_) | Value::Float(_), Kind::Integer) | (Value::Boolean(_), Kind::Boolean) => true,
        (Value::Text { text, .. }, Kind::Integer) => Number::parse(text).is_some(),
        (Value::Text { text, .. }, Kind::Boolean) => {
            text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false")
        }
        (Value::Text { .. }, Kind::Time) => true,
        _ => false,
    };
    match possible {
        true => Ok(()),
        false => refused(Code::TypeMismatch, format!("'{name}' is {kind} and is never equal to this value")),
    }
}

fn test(
    node: &Node,
    modifiers: &Modifiers,
    target: &Target<'_>,
    problems: &mut Problems<'_>,
) -> Result<Option<Test>, Refused> {
    Ok(Some(match &modifiers.how {
        How::Exists => match node.value {
            Value::Boolean(expected) => Test::Exists(expected),
            _ => return refused(Code::InvalidValue, format!("'exists' asks for true or false, not {}", node.kind())),
        },
        How::Compare(comparison) => Test::Compare(*comparison, number(node)?),
        How::Part(part, comparison) => match number(node)? {
            Number::Integer(integer) => Test::Part(*part, *comparison, integer),
            Number::Float(_) => return refused(Code::InvalidValue, "a part of a date is a whole number"),
        },
        How::Network => match text(node)?.parse() {
            Ok(network) => Test::Network(network),
            Err(_) => return network_of_one(text(node)?).map(Some),
        },
        How::Regex { flags } => Test::Regex(regex(text(node)?, flags)?),
        How::Reference(affix) => {
            let name = text(node)?;
            let Some((field, ..)) = resolve(name, node.place, target.scope, problems) else { return Ok(None) };
            Test::Reference { field, affix: *affix, cased: modifiers.cased }
        }
        How::Text { affix, encodings } => return plain(node, *affix, encodings, modifiers, target).map(Some),
    }))
}

fn text(node: &Node) -> Result<&str, Refused> {
    match node.text() {
        Some(text) => Ok(text),
        None => refused(Code::InvalidValue, format!("this modifier asks for text, not {}", node.kind())),
    }
}

fn number(node: &Node) -> Result<Number, Refused> {
    match node.value {
        Value::Integer(integer) => Ok(Number::Integer(integer)),
        Value::Float(float) => Ok(Number::Float(float)),
        _ => refused(Code::InvalidValue, format!("this modifier asks for a number, not {}", node.kind())),
    }
}

/// `cidr` with a bare address means that address.
fn network_of_one(text: &str) -> Result<Test, Refused> {
    match text.parse::<std::net::IpAddr>() {
        Ok(address) => Ok(Test::Network(address.into())),
        Err(_) => {
            refused(Code::InvalidValue, format!("'{}' is not a network: write 203.0.113.0/24", text.escape_debug()))
        }
    }
}

fn regex(text: &str, flags: &[char]) -> Result<regex::Regex, Refused> {
    if text.len() > REGEX_LENGTH_MAX {
        return refused(Code::Limit, format!("a regular expression longer than {REGEX_LENGTH_MAX} bytes"));
    }
    regex::RegexBuilder::new(text)
        .case_insensitive(flags.contains(&'i'))
        .multi_line(flags.contains(&'m'))
        .dot_matches_new_line(flags.contains(&'s'))
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|error| {
            // The last line of the crate's message says what is wrong; the lines before it draw where.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            (Code::InvalidRegex, format!("not a regular expression harrier runs: {reason}"))
        })
}

fn plain(
    node: &Node,
    affix: Affix,
    encodings: &[Encoding],
    modifiers: &Modifiers,
    target: &Target<'_>,
) -> Result<Test, Refused> {
    let is_plain = affix == Affix::Whole && encodings.is_empty() && !modifiers.cased && !modifiers.any_dash;
    let keyword = target.name.is_none();
    let text = match &node.value {
        Value::Text { text, .. } => text.clone(),
        Value::Null if is_plain && !keyword => return Ok(Test::Null),
        Value::Boolean(boolean) if is_plain && !keyword => return Ok(Test::Boolean(*boolean)),
        Value::Integer(integer) if is_plain && !keyword => return Ok(Test::Number(Number::Integer(*integer))),
        Value::Float(float) if is_plain && !keyword => return Ok(Test::Number(Number::Float(*float))),
        // Part of a text: YAML took the quotes away that the author did not write.
        Value::Integer(integer) if encodings.is_empty() => integer.to_string(),
        Value::Float(float) if encodings.is_empty() => float.to_string(),
        _ if !is_plain && !keyword => {
            let message =
                format!("this modifier looks inside texts, and here is {}: quote it if it is a text", node.kind());
            return refused(Code::InvalidValue, message);
        }
        _ => return refused(Code::InvalidValue, format!("expected text here, not {}", node.kind())),
    };
    let text = match target.values {
        Values::Same => text,
        Values::Operation => operation(&text, affix),
        Values::Outcome => outcome(text),
        Values::Category => text.strip_suffix("Management").unwrap_or(&text).to_owned(),
        // Records are written for raised alerts only, so anything else is what no record has.
        Values::Raised if text.eq_ignore_ascii_case("success") => "Alert*".to_owned(),
        Values::Raised => text,
    };
    let text = match target.field {
        // The field has no dash but '-', so a rule that copies Microsoft's spelling would never match.
        Some(field) if field == schemas::field::OPERATION_KEY => operation(&text, affix),
        _ => text,
    };
    if encodings.is_empty() {
        let number = if affix == Affix::Whole { Number::parse(&text) } else { None };
        let affix = if keyword && affix == Affix::Whole { Affix::Contains } else { affix };
        let mut pattern = Pattern::parse(&text, modifiers.cased);
        if modifiers.any_dash {
            pattern = pattern.with_any_dash();
        }
        return Ok(Test::Text { pattern: affixed(pattern, affix), number });
    }
    let pattern = Pattern::parse(&text, true);
    if pattern.has_wildcards() {
        return refused(Code::InvalidModifier, "wildcards cannot be encoded: escape them with '\\' or leave them out");
    }
    let affix = if keyword && affix == Affix::Whole { Affix::Contains } else { affix };
    let forms = encode(&pattern.letters(), encodings)?;
    let test =
        |form: &String| Test::Text { pattern: affixed(Pattern::literal(form, modifiers.cased), affix), number: None };
    Ok(Test::AnyOf(forms.iter().map(test).collect()))
}

fn affixed(pattern: Pattern, affix: Affix) -> Pattern {
    match affix {
        Affix::Whole => pattern,
        Affix::Contains => pattern.with_run_before().with_run_after(),
        Affix::StartsWith => pattern.with_run_after(),
        Affix::EndsWith => pattern.with_run_before(),
    }
}

/// An operation name as `operation_key` has it.
fn operation(text: &str, affix: Affix) -> String {
    let dashes = ['\u{2010}', '\u{2011}', '\u{2012}', '\u{2013}', '\u{2014}', '\u{2015}', '\u{2212}'];
    let text = text.replace(dashes, "-");
    match affix {
        Affix::Whole | Affix::EndsWith => text.trim_end().trim_end_matches('.').trim_end().to_owned(),
        _ => text,
    }
}

/// An outcome as `outcome` has it. Of other words of the portals, such as `interrupted`, the log has nothing.
fn outcome(text: String) -> String {
    match text.to_ascii_lowercase().as_str() {
        "success" | "succeeded" => "success".to_owned(),
        "failure" | "failed" => "failure".to_owned(),
        _ => text,
    }
}

fn encode(text: &str, encodings: &[Encoding]) -> Result<Vec<String>, Refused> {
    let mut bytes = text.as_bytes().to_vec();
    for encoding in encodings {
        match encoding {
            Encoding::Utf16Le => bytes = text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            Encoding::Utf16Be => bytes = text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
            Encoding::Utf16 => {
                bytes = vec![0xff, 0xfe];
                bytes.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
            }
            Encoding::Base64 => return Ok(vec![base64(&bytes)]),
            Encoding::Base64Offset => return offsets(&bytes),
        }
    }
    Ok(vec![text.to_owned()])
}

/// The letters that surely stand in base64 of anything that contains the bytes, for each of the three alignments.
fn offsets(bytes: &[u8]) -> Result<Vec<String>, Refused> {
    let mut forms = Vec::new();
    for before in 0..3 {
        let mut padded = vec![b' '; before];
        padded.extend_from_slice(bytes);
        // Letters that also depend on the bytes before and after are left out.
        let first = (before * 8).div_ceil(6);
        let last = padded.len() * 8 / 6;
        match base64(&padded).get(first..last) {
            Some(form) if !form.is_empty() => forms.push(form.to_owned()),
            _ => return refused(Code::InvalidValue, "too short to be found in base64"),
        }
    }
    Ok(forms)
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for letter in 0..4 {
            let index = bits >> (18 - 6 * letter) & 63;
            out.push(if letter <= chunk.len() { char::from(LETTERS[index as usize]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_everyone_else() {
        for (text, expected) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
        assert_eq!(offsets(b"/bin/bash").unwrap(), ["L2Jpbi9iYXNo", "9iaW4vYmFza", "vYmluL2Jhc2"]);
        assert_eq!(encode("foobar", &[Encoding::Utf16Le, Encoding::Base64]).unwrap(), ["ZgBvAG8AYgBhAHIA"]);
    }
}
