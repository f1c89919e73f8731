use super::markup::Markup;

/// How drawings look, in light and in the dark.
pub(super) const PLOT: &str = include_str!("plot.css");
/// How the page around them looks.
pub(super) const PAGE: &str = include_str!("page.css");

/// A drawing as a file that opens by itself.
pub(super) fn standalone(drawing: &Markup) -> String {
    let drawing = drawing.as_str();
    let inside = drawing.find('>').map_or(drawing.len(), |end| end + 1);
    let (head, rest) = drawing.split_at(inside);
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{head}<style>{PLOT}</style>{rest}")
}
