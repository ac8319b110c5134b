//! Event values for people's eyes. Attackers write them: nothing in them may act on what shows them.

/// Text in which everything that [`acts`] is shown as `\x1b` or `\u{202e}`, line ends and tabs as `\n`, `\r`, `\t`. All
/// else, whatever the script, is left as it is.
pub fn escape_controls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| push_escaped(c, &mut out));
    out
}

/// Appends one character, escaped if it acts.
pub fn push_escaped(c: char, out: &mut String) {
    use std::fmt::Write as _;
    // Writing into a string cannot fail.
    let _ = match c {
        '\n' => write!(out, "\\n"),
        '\r' => write!(out, "\\r"),
        '\t' => write!(out, "\\t"),
        c if acts(c) && u32::from(c) < 0x100 => write!(out, "\\x{:02x}", u32::from(c)),
        c if acts(c) => write!(out, "\\u{{{:x}}}", u32::from(c)),
        c => {
            out.push(c);
            Ok(())
        }
    };
}

/// Control characters, line and paragraph separators, and the invisible ones that reorder or hide text.
pub fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
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
