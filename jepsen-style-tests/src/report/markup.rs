use std::fmt::{Display, Write as _};

/// HTML or SVG that is being written. Only what this program itself says is markup; everything else is text and is
/// escaped, so that nothing in a log or an error becomes part of the page.
#[derive(Clone, Debug, Default)]
pub(super) struct Markup(String);

/// What an attribute is set to.
pub(super) type Attribute<'a> = (&'static str, &'a dyn Display);

/// A number of pixels, with as many digits as one can see.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Px(pub(super) f64);

impl Markup {
    /// Markup of this program's own.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Other markup.
    pub(super) fn add(&mut self, other: &Self) -> &mut Self {
        self.0.push_str(&other.0);
        self
    }

    /// Text, escaped.
    pub(super) fn text(&mut self, text: impl Display) -> &mut Self {
        let written = write!(Escaped(&mut self.0), "{text}");
        debug_assert!(written.is_ok(), "a string takes everything");
        self
    }

    /// The beginning of an element.
    pub(super) fn open(&mut self, tag: &'static str, attributes: &[Attribute<'_>]) -> &mut Self {
        self.raw("<").raw(tag);
        for (name, value) in attributes {
            self.raw(" ").raw(name).raw("=\"").text(value).raw("\"");
        }
        self.raw(">")
    }

    /// Its end.
    pub(super) fn close(&mut self, tag: &'static str) -> &mut Self {
        self.raw("</").raw(tag).raw(">\n")
    }

    /// An element with text in it.
    pub(super) fn element(
        &mut self,
        tag: &'static str,
        attributes: &[Attribute<'_>],
        text: impl Display,
    ) -> &mut Self {
        self.open(tag, attributes).text(text).close(tag)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

struct Escaped<'a>(&'a mut String);

impl std::fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' | '\t' => self.0.push(character),
                // XML has no place for these, not even escaped.
                _ if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') => {
                    self.0.push('\u{fffd}');
                }
                _ => self.0.push(character),
            }
        }
        Ok(())
    }
}

impl Display for Px {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tenths = (self.0 * 10.0).round() / 10.0;
        // Never "-0".
        write!(f, "{}", if tenths == 0.0 { 0.0 } else { tenths })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_never_becomes_markup() {
        let mut markup = Markup::default();
        markup.element(
            "p",
            &[("title", &"\"><script>")],
            "<script>alert('&')</script>\u{1b}[31m",
        );
        assert_eq!(
            markup.as_str(),
            "<p title=\"&quot;&gt;&lt;script&gt;\">&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;\u{fffd}[31m</p>\n"
        );
    }

    #[test]
    fn pixels_have_one_digit_at_most() {
        let written: Vec<_> = [1.0, 1.04, 1.06, -0.01]
            .iter()
            .map(|px| Px(*px).to_string())
            .collect();
        assert_eq!(written, ["1", "1", "1.1", "0"]);
    }
}
