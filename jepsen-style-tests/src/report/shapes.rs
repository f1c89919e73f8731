use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::markup::{Attribute, Markup, Px};
use crate::history::Kind;

/// Points or bars of one class, as one path. Those that would lie on one another are drawn once, so that a drawing
/// has a bounded size however long the history is.
pub(super) struct Shapes {
    class: &'static str,
    path: String,
    drawn: BTreeSet<(i64, i64)>,
}

/// How an operation ended, as classes of signs. In the order in which they are drawn: what is rare comes on top.
pub(super) const ENDS: [(Kind, &str, &str); 3] = [
    (Kind::Ok, "ok", "ok: it happened"),
    (Kind::Fail, "fail", "fail: it did not happen"),
    (Kind::Info, "info", "info: nobody knows"),
];

impl Shapes {
    pub(super) fn new(class: &'static str) -> Self {
        Self {
            class,
            path: String::new(),
            drawn: BTreeSet::new(),
        }
    }

    /// A point.
    pub(super) fn point(&mut self, x: f64, y: f64) {
        if self
            .drawn
            .insert(((x * 2.0).round() as i64, (y * 2.0).round() as i64))
        {
            // A line of no length with round ends.
            self.push(format_args!("M{} {}h0", Px(x), Px(y)));
        }
    }

    /// A bar from one place to another, at this height.
    pub(super) fn bar(&mut self, from: f64, to: f64, y: f64) {
        self.push(format_args!("M{} {}H{}", Px(from), Px(y), Px(to)));
    }

    fn push(&mut self, command: std::fmt::Arguments<'_>) {
        let written = self.path.write_fmt(command);
        debug_assert!(written.is_ok(), "a string takes everything");
    }

    /// Draws them.
    pub(super) fn draw(self, svg: &mut Markup) {
        if self.path.is_empty() {
            return;
        }
        let path: [Attribute<'_>; 2] = [("class", &self.class), ("d", &self.path)];
        svg.open("path", &path).close("path");
    }
}
