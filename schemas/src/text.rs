//! Event values for people's eyes. Attackers write them: nothing in them may act on what shows them.

/// Text in which control characters, and characters that reorder or hide what follows, are shown as `\x1b` or `\u{202e}`.
/// Everything else, whatever the script, is left as it is.
pub fn escape_controls(text: &str) -> String {
    use std::fmt::Write as _;
    if !text.chars().any(acts) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        // Writing into a string cannot fail.
        let _ = match c {
            '\n' => write!(out, "\\n"),
            '\r' => write!(out, "\\r"),
            '\t' => write!(out, "\\t"),
            c if acts(c) && u32::from(c) < 0x100 => write!(out, "\\x{:02x}", u32::from(c)),
            c if acts(c) => write!(out, "\\u{{{:x}}}", u32::from(c)),
            c => write!(out, "{c}"),
        };
    }
    out
}

/// Control characters, direction marks and overrides, invisible and line-separating characters.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_acts_comes_through_and_nothing_else_changes() {
        assert_eq!(escape_controls("\x1b[2Jabc\r\n\u{202e}x\u{9b}"), r"\x1b[2Jabc\r\n\u{202e}x\x9b");
        assert_eq!(escape_controls("Éléments supprimés — 削除"), "Éléments supprimés — 削除");
    }
}
