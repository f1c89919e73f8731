/// The layout of a table's directory. Rises when an older build could no longer read it: another layout of
/// ours, another version of sled, another segment size.
const FORMAT: u32 = 1;

const TITLE: &str = "unanimo table, format ";

/// What the marker file says: that the directory is a complete table, which one, and whether it still lacks
/// what was in a damaged predecessor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) name: String,
    /// The file name of the directory that this one stands in for, until the owner has rebuilt the contents.
    pub(crate) replaces: Option<String>,
}

/// What a marker file turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Marker(Marker),
    /// A marker, but of a layout that this build does not know; it may know nothing else about it either.
    OtherFormat(String),
    /// Not a marker that we wrote.
    Unreadable,
}

impl Marker {
    pub(crate) fn to_text(&self) -> String {
        let replaces = self
            .replaces
            .as_ref()
            .map(|replaces| format!("replaces {replaces}\n"));
        format!(
            "{TITLE}{FORMAT}\nname {}\n{}",
            self.name,
            replaces.unwrap_or_default()
        )
    }

    pub(crate) fn read(text: &[u8]) -> Reading {
        let Ok(text) = std::str::from_utf8(text) else {
            return Reading::Unreadable;
        };
        let Some((title, rest)) = text.split_once('\n') else {
            return Reading::Unreadable;
        };
        let Some(format) = title.strip_prefix(TITLE) else {
            return Reading::Unreadable;
        };
        match format.parse::<u32>() {
            Ok(FORMAT) => Self::read_lines(rest).map_or(Reading::Unreadable, Reading::Marker),
            Ok(_) => Reading::OtherFormat(format!("format {format}")),
            Err(_) => Reading::Unreadable,
        }
    }

    fn read_lines(text: &str) -> Option<Self> {
        let (name, rest) = text.strip_prefix("name ")?.split_once('\n')?;
        let replaces = match rest {
            "" => None,
            rest => Some(rest.strip_prefix("replaces ")?.strip_suffix('\n')?.to_owned()),
        };
        Some(Self {
            name: name.to_owned(),
            replaces,
        })
    }

    /// How a message names the table.
    pub(crate) fn describe(name: &str) -> String {
        format!("{name} table (format {FORMAT})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_writes() {
        for replaces in [None, Some("accounts.damaged-3".to_owned())] {
            let marker = Marker {
                name: "accounts".to_owned(),
                replaces,
            };
            assert_eq!(Marker::read(marker.to_text().as_bytes()), Reading::Marker(marker));
        }
    }

    #[test]
    fn a_part_of_a_marker_is_not_a_marker() {
        let text = Marker {
            name: "accounts".to_owned(),
            replaces: Some("x".to_owned()),
        }
        .to_text();
        let complete = Marker {
            name: "accounts".to_owned(),
            replaces: None,
        }
        .to_text();
        for length in 0..text.len() {
            let expected_complete = text[..length] == complete;
            let reading = Marker::read(&text.as_bytes()[..length]);
            assert_eq!(
                matches!(reading, Reading::Marker(_)),
                expected_complete,
                "length {length}"
            );
        }
    }

    #[test]
    fn another_format_is_told_from_damage() {
        assert_eq!(
            Marker::read(b"unanimo table, format 2\nany\n"),
            Reading::OtherFormat("format 2".to_owned())
        );
        assert_eq!(Marker::read(b"unanimo table, format \xFF\n"), Reading::Unreadable);
        assert_eq!(Marker::read(b""), Reading::Unreadable);
    }
}
