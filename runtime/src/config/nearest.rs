//! The known name that somebody most likely meant.

/// The nearest of the known names, if one is near: a slip or two of the finger, or the beginning of a longer name.
pub(super) fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let name = name.to_lowercase();
    let slips_max = 1 + name.chars().count() / 4;
    let near = |known: &&'static str| {
        let candidate = known.to_lowercase();
        let starts = name.len() >= 3 && (candidate.starts_with(&name) || name.starts_with(&candidate));
        let slips = distance(&name, &candidate);
        (starts || slips <= slips_max).then_some((slips, *known))
    };
    known.iter().filter_map(near).min().map(|(_, known)| known)
}

/// Edits that turn one text into the other: insert, remove, replace.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (done, from) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = done + 1;
        for (column, to) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let known = &["client_id", "client_secret_file", "domains", "url_file"];
        for (name, meant) in [
            ("clientid", Some("client_id")),
            ("domain", Some("domains")),
            ("DOMAINS", Some("domains")),
            ("client_secrets_file", Some("client_secret_file")),
            ("url", Some("url_file")),
            ("client_secret", Some("client_secret_file")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known), meant, "{name:?}");
        }
    }
}
