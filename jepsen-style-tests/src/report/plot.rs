use super::markup::{Attribute, Markup, Px};
use super::words;
use crate::nemesis::Injected;

/// For which screen a plot is drawn. Shrinking a drawing shrinks its letters, so there are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// For a desk, and for the files.
    Wide,
    /// For a telephone: faults have only their numbers.
    Narrow,
}

/// A drawing over a stretch of time, with the faults shaded behind it.
pub(super) struct Plot<'a> {
    size: Size,
    title: &'static str,
    /// What stands for which sign, and how many there are.
    legend: Vec<(&'static str, String)>,
    /// What is shown: from when until when, in nanoseconds.
    span: (u64, u64),
    faults: &'a [Injected],
    labels: Vec<Label>,
    rows: usize,
    height: f64,
    axis: Axis,
    body: Markup,
}

/// The scale from bottom to top.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    scale: Scale,
    least: f64,
    most: f64,
    ticks: Vec<(f64, String)>,
}

#[derive(Clone, Copy, Debug)]
enum Scale {
    Linear,
    Log,
}

/// Where the name of a fault stands.
struct Label {
    text: String,
    x: f64,
    row: usize,
}

/// The space left of the time axis, for the numbers of the other axis.
pub(super) const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
/// The height of one row of text.
const ROW: f64 = 15.0;
/// The width of a letter, more or less.
const LETTER: f64 = 6.3;
/// Rows of names of faults at most; then there are only numbers, and at last none.
const ROWS: usize = 5;

impl Size {
    pub(super) fn width(self) -> f64 {
        match self {
            Self::Wide => 1100.0,
            Self::Narrow => 372.0,
        }
    }
}

impl Axis {
    /// From nothing to at least this much.
    pub(super) fn up_to(most: f64) -> Self {
        Self::between(0.0, most.max(1.0))
    }

    /// At least from here to there, in equal steps.
    pub(super) fn between(least: f64, most: f64) -> Self {
        let step = nice_step((most - least).max(1.0) / 4.0).max(1.0);
        let (first, last) = ((least / step).floor() as i64, (most / step).ceil() as i64);
        let ticks = (first..=last).map(|place| place as f64 * step);
        Self {
            scale: Scale::Linear,
            least: first as f64 * step,
            most: last as f64 * step,
            ticks: ticks.map(|tick| (tick, words::number(tick as i128))).collect(),
        }
    }

    /// Milliseconds between these, each step ten times the one before.
    pub(super) fn log_ms(least: f64, most: f64) -> Self {
        let first = least.max(0.1).log10().floor() as i32;
        let last = (most.max(0.1).log10().ceil() as i32).max(first + 1);
        let text = |power: i32| match power {
            ..0 => format!("{} ms", 10_f64.powi(power)),
            0..3 => format!("{} ms", 10_u64.pow(power.unsigned_abs())),
            _ => format!("{} s", words::number(10_i128.pow(power.unsigned_abs() - 3))),
        };
        Self {
            scale: Scale::Log,
            least: 10_f64.powi(first),
            most: 10_f64.powi(last),
            ticks: (first..=last)
                .map(|power| (10_f64.powi(power), text(power)))
                .collect(),
        }
    }

    /// Without numbers.
    pub(super) fn none() -> Self {
        Self {
            scale: Scale::Linear,
            least: 0.0,
            most: 1.0,
            ticks: Vec::new(),
        }
    }

    /// How high something is: 0 at the bottom, 1 at the top.
    fn share(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.least) / (self.most - self.least),
            Scale::Log => {
                (value.max(self.least).log10() - self.least.log10())
                    / (self.most.log10() - self.least.log10())
            }
        };
        share.clamp(0.0, 1.0)
    }
}

impl<'a> Plot<'a> {
    /// An empty one.
    pub(super) fn new(
        size: Size,
        title: &'static str,
        span: (u64, u64),
        faults: &'a [Injected],
        height: f64,
        axis: Axis,
    ) -> Self {
        let mut plot = Self {
            size,
            title,
            legend: Vec::new(),
            span: (span.0, span.1.max(span.0 + 1)),
            faults,
            labels: Vec::new(),
            rows: 0,
            height,
            axis,
            body: Markup::default(),
        };
        plot.place_labels();
        plot
    }

    /// Says what a sign stands for.
    pub(super) fn explain(&mut self, class: &'static str, text: impl Into<String>) {
        self.legend.push((class, text.into()));
    }

    /// Where a moment is, from the left.
    pub(super) fn x(&self, ns: u64) -> f64 {
        let (from, until) = self.span;
        let share = (ns.clamp(from, until) - from) as f64 / (until - from) as f64;
        LEFT + share * (self.size.width() - LEFT - RIGHT)
    }

    /// Where a value is, from the top.
    pub(super) fn y(&self, value: f64) -> f64 {
        self.top() + (1.0 - self.axis.share(value)) * self.height
    }

    /// Where the drawing itself begins, from the top.
    pub(super) fn top(&self) -> f64 {
        28.0 + self.legend_rows() as f64 * ROW + self.rows as f64 * ROW
    }

    pub(super) fn bottom(&self) -> f64 {
        self.top() + self.height
    }

    /// Draws. Everything has to be explained before, because it moves what is below.
    pub(super) fn draw(&mut self) -> &mut Markup {
        &mut self.body
    }

    /// Writes text at this height, left of the drawing.
    pub(super) fn name_row(&mut self, y: f64, text: &str) {
        self.body.element(
            "text",
            &[("x", &Px(LEFT - 6.0)), ("y", &Px(y)), ("class", &"tick end")],
            text,
        );
    }

    /// The whole drawing.
    pub(super) fn finish(self) -> Markup {
        let (width, height) = (self.size.width(), self.bottom() + 24.0);
        let mut svg = Markup::default();
        let view = format!("0 0 {} {}", Px(width), Px(height));
        svg.open(
            "svg",
            &[
                ("xmlns", &"http://www.w3.org/2000/svg"),
                ("class", &"plot"),
                ("role", &"img"),
                ("viewBox", &view),
                ("width", &Px(width)),
                ("height", &Px(height)),
            ],
        );
        svg.element("title", &[], self.title);
        svg.element("text", &[("class", &"title"), ("x", &0), ("y", &14)], self.title);
        self.write_legend(&mut svg);
        self.write_faults(&mut svg);
        self.write_axes(&mut svg);
        svg.add(&self.body);
        svg.close("svg");
        svg
    }

    /// Where each sign of the legend stands: from the left, and in which row.
    fn legend_places(&self) -> Vec<(f64, usize)> {
        let (mut x, mut row) = (0.0, 0);
        let width = |text: &str| 14.0 + text.chars().count() as f64 * LETTER + 12.0;
        let mut places = Vec::new();
        for (_, text) in &self.legend {
            if x > 0.0 && x + width(text) > self.size.width() {
                (x, row) = (0.0, row + 1);
            }
            places.push((x, row));
            x += width(text);
        }
        places
    }

    fn legend_rows(&self) -> usize {
        self.legend_places().last().map_or(0, |(_, row)| row + 1)
    }

    fn write_legend(&self, svg: &mut Markup) {
        for ((class, text), (x, row)) in self.legend.iter().zip(self.legend_places()) {
            let y = 24.0 + row as f64 * ROW + 8.0;
            let sign: [Attribute<'_>; 4] = [
                ("class", &format!("sign {class}")),
                ("cx", &Px(x + 5.0)),
                ("cy", &Px(y)),
                ("r", &4),
            ];
            svg.open("circle", &sign).close("circle");
            svg.element("text", &[("x", &Px(x + 13.0)), ("y", &Px(y + 4.0))], text);
        }
    }

    /// The faults that are in sight, with their places among all.
    fn faults_shown(&self) -> impl Iterator<Item = (usize, &'a Injected)> + use<'a> {
        let (from, until) = self.span;
        let in_sight =
            move |(_, fault): &(usize, &Injected)| fault.begun_ns <= until && fault.ended_ns >= from;
        self.faults.iter().enumerate().filter(in_sight)
    }

    fn write_faults(&self, svg: &mut Markup) {
        let top = self.top();
        for (place, fault) in self.faults_shown() {
            let (from, until) = (self.x(fault.begun_ns), self.x(fault.ended_ns));
            let class = if fault.evidence.is_some() {
                "fault"
            } else {
                "fault missing"
            };
            svg.open(
                "rect",
                &[
                    ("class", &class),
                    ("x", &Px(from)),
                    ("y", &Px(top)),
                    // Wide enough to be seen.
                    ("width", &Px((until - from).max(1.5))),
                    ("height", &Px(self.height)),
                ],
            );
            let evidence = fault
                .evidence
                .as_deref()
                .unwrap_or("nobody can tell whether it happened");
            let told = format!("{} {}: {}; {evidence}", place + 1, fault.fault, fault.what);
            svg.element("title", &[], told).close("rect");
        }
        for label in &self.labels {
            let y = top - (self.rows - label.row) as f64 * ROW + 10.0;
            let line: [Attribute<'_>; 5] = [
                ("class", &"lead"),
                ("x1", &Px(label.x)),
                ("x2", &Px(label.x)),
                ("y1", &Px(y - 9.0)),
                ("y2", &Px(top)),
            ];
            svg.open("line", &line).close("line");
            let place: [Attribute<'_>; 3] = [("class", &"name"), ("x", &Px(label.x + 3.0)), ("y", &Px(y))];
            svg.element("text", &place, &label.text);
        }
    }

    fn write_axes(&self, svg: &mut Markup) {
        let (right, bottom) = (self.size.width() - RIGHT, self.bottom());
        for (value, text) in &self.axis.ticks {
            let y = self.y(*value);
            line(svg, "grid", (LEFT, y), (right, y));
            svg.element(
                "text",
                &[
                    ("class", &"tick end"),
                    ("x", &Px(LEFT - 6.0)),
                    ("y", &Px(y + 4.0)),
                ],
                text,
            );
        }
        let ticks = if self.size == Size::Wide { 14.0 } else { 5.0 };
        let (from, until) = (self.span.0 as f64 / 1e9, self.span.1 as f64 / 1e9);
        let step = nice_step((until - from) / ticks);
        let (first, last) = ((from / step).ceil() as u64, (until / step).floor() as u64);
        for place in first..=last {
            let second = place as f64 * step;
            let x = self.x((second * 1e9) as u64);
            line(svg, "grid", (x, bottom), (x, bottom + 4.0));
            let text = format!("{} s", (second * 1e6).round() / 1e6);
            let place: [Attribute<'_>; 3] = [
                ("class", &"tick middle"),
                ("x", &Px(x)),
                ("y", &Px(bottom + 16.0)),
            ];
            svg.element("text", &place, text);
        }
        line(svg, "axis", (LEFT, bottom), (right, bottom));
    }

    /// Puts the name of each fault above where it begins; its number alone if there is no place for its name, and
    /// nothing if there is none for that either.
    fn place_labels(&mut self) {
        let mut order: Vec<(usize, &Injected)> = self.faults_shown().collect();
        order.sort_by_key(|(_, fault)| fault.begun_ns);
        let mut ends: Vec<f64> = Vec::new();
        for (place, fault) in order {
            let x = self.x(fault.begun_ns);
            // Below the last row in which something is in the way, so that no line crosses a name.
            let row = ends.iter().rposition(|end| *end > x).map_or(0, |row| row + 1);
            let named = format!("{} {}", place + 1, fault.fault);
            let numbered = (place + 1).to_string();
            // The row below the names is for numbers, so that a fault among many is not left out.
            let texts = match self.size {
                Size::Wide => vec![(named, ROWS), (numbered, ROWS + 1)],
                Size::Narrow => vec![(numbered, 2)],
            };
            let fitting = texts.into_iter().find_map(|(text, rows)| {
                let end = x + 3.0 + text.chars().count() as f64 * LETTER;
                (row < rows && end <= self.size.width()).then_some((text, end + 6.0))
            });
            let Some((text, end)) = fitting else { continue };
            ends.truncate(row);
            ends.push(end);
            self.rows = self.rows.max(row + 1);
            self.labels.push(Label { text, x, row });
        }
    }
}

/// A straight line.
pub(super) fn line(svg: &mut Markup, class: &'static str, from: (f64, f64), to: (f64, f64)) {
    let ends: [Attribute<'_>; 5] = [
        ("class", &class),
        ("x1", &Px(from.0)),
        ("y1", &Px(from.1)),
        ("x2", &Px(to.0)),
        ("y2", &Px(to.1)),
    ];
    svg.open("line", &ends).close("line");
}

/// 1, 2 or 5 times a power of ten, and at least this.
fn nice_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1e-6).log10().floor());
    [1.0, 2.0, 5.0]
        .iter()
        .map(|times| times * power)
        .find(|step| *step >= least * 0.999_999)
        .unwrap_or(power * 10.0)
}
