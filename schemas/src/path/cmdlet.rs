//! Parameters that stand in one text, written as one types them at a prompt.
//!
//! Records have what was asked of a cmdlet as a list of names and values, and some have it as this text instead. Reading it
//! cannot fail: text of another form has no parameters.

/// The parameters of a command in cmdlet syntax: `-Name "x" -HoldNames () -Types ("Bulk","Spam")`. Lists are joined
/// with `;`, as the array form has them. Text that is not of that form has none.
pub fn cmdlet_parameters(text: &str) -> Vec<(&str, String)> {
    let mut parameters = Vec::new();
    let mut rest = text.trim_start();
    while let Some(after) = rest.strip_prefix('-') {
        let end = after.find(|c: char| !c.is_alphanumeric()).unwrap_or(after.len());
        let (name, tail) = after.split_at(end);
        if name.is_empty() {
            break;
        }
        let tail = tail.strip_prefix(':').unwrap_or(tail).trim_start();
        let (value, tail) = cmdlet_value(tail);
        parameters.push((name, value));
        rest = tail.trim_start();
    }
    parameters
}

/// One value and what follows it. A quote inside quotes is doubled.
fn cmdlet_value(text: &str) -> (String, &str) {
    if let Some(inner) = text.strip_prefix('"') {
        return quoted(inner);
    }
    if let Some(inner) = text.strip_prefix('(') {
        let mut values = Vec::new();
        let mut rest = inner.trim_start();
        loop {
            if let Some(after) = rest.strip_prefix(')') {
                return (values.join(";"), after);
            }
            let (value, after) = match rest.strip_prefix('"') {
                Some(inner) => quoted(inner),
                None => {
                    let end = rest.find([',', ')']).unwrap_or(rest.len());
                    (rest[..end].trim().to_owned(), &rest[end..])
                }
            };
            values.push(value);
            let after = after.trim_start();
            rest = after.strip_prefix(',').unwrap_or(after).trim_start();
            if rest.is_empty() {
                return (values.join(";"), rest);
            }
        }
    }
    if text.starts_with('-') {
        return (String::new(), text);
    }
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    (text[..end].to_owned(), &text[end..])
}

fn quoted(inner: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = inner;
    while let Some(end) = rest.find('"') {
        value.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                value.push('"');
                rest = after;
            }
            None => return (value, rest),
        }
    }
    value.push_str(rest);
    (value, "")
}
