//! Text from outside in a line that people read. Names of files may have any character: one that moves the cursor, breaks
//! the line or turns it around would let a file make a report say something else.

/// Longest name repeated in a message.
const NAME_CHARS_MAX: usize = 200;

/// The text with its control characters as escapes, such as `\n` and `\u{1b}`.
pub(crate) fn escape_control_characters(text: &str) -> String {
    escape(text, |character| character.is_control() || turns_or_breaks(character))
}

fn escape(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_escaped(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// A hostile name as text that fits a line and quotes: invalid UTF-8 replaced, control characters as escapes, so that no
/// other name looks like them, cut.
pub(crate) fn printable(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let is_escaped =
        |character: char| character.is_control() || turns_or_breaks(character) || matches!(character, '"' | '\\');
    match text.char_indices().nth(NAME_CHARS_MAX) {
        Some((end, _)) => escape(&text[..end], is_escaped) + "...",
        None => escape(&text, is_escaped),
    }
}

/// What Unicode does not count as a control character although it sets the direction of the text around it, or ends a
/// line.
fn turns_or_breaks(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_all_else_stays() {
        let hostile = "a\x1b[2J\r\nb\u{9b}31m\x7f\0\u{202e}gpj.exe\u{2028}";
        let escaped = r"a\u{1b}[2J\r\nb\u{9b}31m\u{7f}\u{0}\u{202e}gpj.exe\u{2028}";
        assert_eq!(escape_control_characters(hostile), escaped);
        let harmless = "Größe 'n' \"quotes\", a\\b, 価格, e\u{301}, \u{fffd}";
        assert_eq!(escape_control_characters(harmless), harmless);
    }

    #[test]
    fn name_fits_a_line_whatever_its_bytes_are() {
        assert_eq!(printable(b"bin/pos"), "bin/pos");
        assert_eq!(printable(br#"a", "b\n"#), r#"a\", \"b\\n"#);
        assert_eq!(printable(b"a\xff\x1b[2J\nb"), "a\u{fffd}\\u{1b}[2J\\nb");
        let longest = "ö".repeat(NAME_CHARS_MAX);
        assert_eq!(printable(longest.as_bytes()), longest);
        assert_eq!(printable(format!("{longest}\n").as_bytes()), longest.clone() + "...");
    }
}
