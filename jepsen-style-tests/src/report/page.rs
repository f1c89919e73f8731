//! The page: the verdict first, in words, then what there is to see.

use super::RunResult;
use super::context::{Context, NAME, Why};
use super::lines::{Level, MemberLog};
use super::markup::Markup;
use super::plots::{Drawing, Seen};
use super::style;
use super::summary::{Quantiles, Summary, missing};
use super::words::{self, many, millis, moment, number};
use crate::checker::{self, Findings, Verdict};
use crate::history::{Call, Kind};
use crate::nemesis::Injected;

/// Everything that is on it.
pub(super) struct Page<'a> {
    pub(super) result: &'a RunResult,
    pub(super) summary: &'a Summary,
    pub(super) seen: &'a Seen<'a>,
    pub(super) drawings: &'a [Drawing],
    pub(super) bad: Option<&'a Context<'a>>,
    pub(super) logs: &'a [MemberLog],
}

/// Violations told of one checker.
const VIOLATIONS: usize = 10;

impl Page<'_> {
    /// The whole page. It needs nothing but itself.
    pub(super) fn write(&self) -> String {
        let mut page = Markup::default();
        let title = format!(
            "{}: {}, seed {}",
            words::verdict(self.result.verdict),
            self.result.workload,
            self.result.seed
        );
        page.raw("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n")
            .raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n")
            .element("title", &[], title)
            .raw("<style>\n")
            .raw(style::PLOT)
            .raw(style::PAGE)
            .raw("</style>\n</head>\n<body>\n<main>\n");
        self.write_verdict(&mut page);
        self.write_tiles(&mut page);
        self.write_links(&mut page);
        self.write_violations(&mut page);
        self.write_bad(&mut page);
        self.write_drawings(&mut page);
        self.write_faults(&mut page);
        self.write_checkers(&mut page);
        self.write_logs(&mut page);
        self.write_words(&mut page);
        page.raw("</main>\n</body>\n</html>\n");
        page.as_str().to_owned()
    }

    fn write_verdict(&self, page: &mut Markup) {
        let verdict = words::verdict(self.result.verdict);
        page.open("div", &[("class", &format!("verdict {verdict}"))]);
        page.raw("<h1><b>").text(verdict.to_uppercase()).raw("</b> ");
        page.text(self.headline()).close("h1");
        page.element("p", &[], self.story());
        if self.result.verdict == Verdict::Unknown {
            page.raw("<p>Nothing may be concluded, so this is no pass:</p>");
            list(page, &self.reasons());
        }
        page.close("div");
        page.raw("<p class=\"soft\">The same plan again (real processes never run the same way twice):</p>");
        page.element("pre", &[], &self.result.command);
    }

    /// The verdict in one sentence.
    fn headline(&self) -> String {
        let violations = self
            .result
            .findings
            .iter()
            .flat_map(|findings| &findings.violations);
        match self.result.verdict {
            Verdict::Valid => format!(
                "All {} checkers found what they need, and no rule was broken.",
                self.result.findings.len()
            ),
            Verdict::Unknown => "No rule was seen broken, but not everything could be checked.".to_owned(),
            Verdict::Invalid => match self
                .bad
                .map(|bad| bad.violation)
                .or_else(|| violations.clone().next())
            {
                Some(first) => format!("A rule was broken: {}.", words::kind(&first.kind)),
                None => "A rule was broken.".to_owned(),
            },
        }
    }

    /// What was done.
    fn story(&self) -> String {
        let (result, summary) = (self.result, self.summary);
        let happened = summary.faults.values().sum();
        let kinds = many(summary.faults.len() as u64, "kind");
        let disturbed = match happened {
            0 => "while nothing was disturbed".to_owned(),
            _ => format!("while {} of {kinds} happened", many(happened, "fault")),
        };
        let first = match self.bad {
            Some(bad) => format!(
                " It shows first in the {} checker: {}. {}",
                bad.checker,
                bad.violation.what,
                bad.disturbed(self.seen).unwrap_or_default()
            ),
            None => String::new(),
        };
        format!(
            "In {} the clients of the {} workload asked {} and {} for {}, {disturbed}.{first}",
            millis(self.seen.end_ns / words::MS),
            result.workload,
            many(result.layout.coordinators, "coordinator"),
            many(result.layout.participants, "participant"),
            many(summary.operations, "operation"),
        )
    }

    fn reasons(&self) -> Vec<String> {
        let faults = self.result.faults_missing.iter();
        let faults = faults.map(|fault| format!("A fault did not happen: {fault}"));
        faults.chain(missing(self.result)).collect()
    }

    fn write_tiles(&self, page: &mut Markup) {
        let summary = self.summary;
        let longest =
            |times: Option<Quantiles>| times.map_or("not known".to_owned(), |times| millis(times.max));
        let tiles = [
            (number(summary.operations), "operations"),
            (number(summary.ok), "ok: happened"),
            (number(summary.fail), "fail: did not happen"),
            (number(summary.info), "info: nobody knows"),
            (number(summary.faults.values().sum::<u64>()), "faults happened"),
            (number(summary.violations.len() as u64), "violations"),
            (longest(summary.in_doubt_ms), "longest in doubt"),
            (longest(summary.recovery_ms), "slowest recovery"),
        ];
        page.raw("<div class=\"tiles\">\n");
        for (value, name) in tiles {
            page.open("div", &[])
                .element("b", &[], value)
                .element("span", &[], name)
                .close("div");
        }
        page.close("div");
    }

    fn write_links(&self, page: &mut Markup) {
        page.raw("<nav>");
        let links = [
            (
                !self.summary.violations.is_empty(),
                "#violations",
                "What was wrong",
            ),
            (self.bad.is_some(), "#first-bad", "First bad operation"),
            (true, "#drawings", "Over time"),
            (true, "#faults", "Faults"),
            (true, "#checkers", "Checkers"),
            (true, "#logs", "Logs"),
            (true, "#words", "Words and files"),
        ];
        for (_, place, name) in links.iter().filter(|(there, ..)| *there) {
            page.element("a", &[("href", place)], name);
        }
        page.close("nav");
    }

    fn write_violations(&self, page: &mut Markup) {
        if self.summary.violations.is_empty() {
            return;
        }
        page.raw("<h2 id=\"violations\">What was wrong</h2>\n");
        for findings in &self.result.findings {
            if findings.violations.is_empty() {
                continue;
            }
            page.open("p", &[])
                .element("b", &[("class", &"invalid")], &findings.checker);
            page.element("span", &[("class", &"soft")], stands_for(findings))
                .close("p");
            let told = findings.violations.iter().take(VIOLATIONS).map(|violation| {
                let line = violation
                    .event
                    .map(|event| format!(" (line {event} of the history)"));
                let kind = words::kind(&violation.kind);
                format!("{kind}: {}{}", violation.what, line.unwrap_or_default())
            });
            let mut told: Vec<String> = told.collect();
            let more = findings.violations.len().saturating_sub(VIOLATIONS);
            if more > 0 {
                told.push(format!("and {more} more in result.json"));
            }
            list(page, &told);
        }
    }

    fn write_bad(&self, page: &mut Markup) {
        let Some(bad) = self.bad else { return };
        page.raw("<h2 id=\"first-bad\">The first bad operation</h2>\n");
        page.element(
            "p",
            &[],
            format!("{}: {}", words::kind(&bad.violation.kind), bad.violation.what),
        );
        for drawing in self.drawings.iter().filter(|drawing| drawing.name == NAME) {
            figure(page, drawing);
        }
        page.raw("<div class=\"scroll\"><table class=\"cards\"><thead><tr><th class=\"number\"></th><th class=\"number\">asked (s)</th>")
            .raw("<th class=\"number\">answered (s)</th><th class=\"number\">line</th><th>process</th><th></th><th>what</th><th>what came of it</th>")
            .raw("<th>in common</th></tr></thead>\n");
        for (place, near) in bad.around.iter().enumerate() {
            let (asked, done) = (near.asked, near.done);
            page.open("tr", &[("class", &if near.why == Why::Bad { "bad" } else { "" })]);
            let call = done.map_or(&asked.call, |done| &done.call);
            cell(page, "number", "", place + 1);
            cell(page, "number", "asked", moment(asked.time_ns));
            cell(
                page,
                "number",
                "answered",
                done.map_or("never".to_owned(), |done| moment(done.time_ns)),
            );
            cell(page, "number", "line", done.unwrap_or(asked).index);
            cell(page, "number", "process", asked.process.0);
            page.open("td", &[]);
            write_end(page, words::ended(done));
            page.close("td");
            // An audit reads dozens of cells: the first few tell which kind it is.
            let shown = if near.why == Why::Bad { usize::MAX } else { 8 };
            let tx = call.transaction().map_or("no id".to_owned(), |tx| tx.to_string());
            page.open("td", &[("class", &"wide")])
                .text(words::call(call, shown))
                .raw("<br>");
            page.element("code", &[("class", &"soft")], tx).close("td");
            cell(page, "wide", "", words::outcome(done));
            cell(page, "common", "in common:", near.why.text());
            page.close("tr");
        }
        page.raw("</table></div>\n");
    }

    fn write_drawings(&self, page: &mut Markup) {
        page.raw("<h2 id=\"drawings\">Over time</h2>\n");
        page.raw("<p class=\"soft\">Time goes from left to right, in seconds since the history began. Shaded: a fault, from its \
                  beginning until everything was as before; the numbers are those of the table of faults.</p>\n");
        for drawing in self.drawings.iter().filter(|drawing| drawing.name != NAME) {
            figure(page, drawing);
        }
    }

    fn write_faults(&self, page: &mut Markup) {
        page.raw("<h2 id=\"faults\">The faults, and how they are known to have happened</h2>\n");
        if !self.result.faults_missing.is_empty() {
            page.raw("<p><b class=\"unknown\">Did not happen, or this machine cannot do them:</b></p>");
            list(page, &self.result.faults_missing);
        }
        if self.result.faults.is_empty() {
            page.raw("<p>There were none.</p>\n");
            return;
        }
        page.raw("<div class=\"scroll\"><table class=\"cards\"><thead><tr><th class=\"number\"></th><th>fault</th><th class=\"number\">from (s)</th>")
            .raw("<th class=\"number\">for</th><th>what</th><th>evidence</th><th class=\"number\">ok, fail, info meanwhile</th>")
            .raw("<th class=\"number\">next commit after it</th></tr></thead>\n");
        for (place, fault) in self.result.faults.iter().enumerate() {
            page.open(
                "tr",
                &[("class", &if fault.evidence.is_some() { "" } else { "bad" })],
            );
            cell(page, "number", "", place + 1);
            page.open("td", &[]).element("b", &[], &fault.fault).close("td");
            cell(page, "number", "from", moment(fault.begun_ns));
            cell(
                page,
                "number",
                "for",
                millis(fault.ended_ns.saturating_sub(fault.begun_ns) / words::MS),
            );
            cell(page, "wide", "", &fault.what);
            let evidence = fault
                .evidence
                .as_deref()
                .unwrap_or("none: nobody can tell whether it happened");
            cell(page, "wide", "evidence:", evidence);
            cell(page, "number", "ok, fail, info meanwhile:", self.meanwhile(fault));
            cell(page, "number", "next commit after it:", self.next_commit(fault));
            page.close("tr");
        }
        page.raw("</table></div>\n");
    }

    /// How operations ended while a fault lasted.
    fn meanwhile(&self, fault: &Injected) -> String {
        let ended = |kind: Kind| {
            let within = |at: u64| at >= fault.begun_ns && at <= fault.ended_ns;
            let operations = self.seen.operations.iter();
            let ended = operations.filter(|(_, done)| {
                done.is_some_and(|done| within(done.time_ns)) && words::ended(*done) == kind
            });
            number(ended.count() as u64)
        };
        [Kind::Ok, Kind::Fail, Kind::Info].map(ended).join(", ")
    }

    fn next_commit(&self, fault: &Injected) -> String {
        // As the checker of availability has it.
        let over = fault.healed_ns.unwrap_or(fault.ended_ns);
        let commits = self.seen.operations.iter().filter_map(|(_, done)| {
            let done = done.filter(|done| done.kind == Kind::Ok && done.time_ns >= over)?;
            matches!(done.call, Call::Transact { .. }).then_some(done.time_ns)
        });
        let next = commits.min();
        next.map_or("none".to_owned(), |at| millis((at - over) / words::MS))
    }

    fn write_checkers(&self, page: &mut Markup) {
        page.raw("<h2 id=\"checkers\">The checkers</h2>\n<div class=\"scroll\"><table class=\"cards\"><thead><tr><th>checker</th>")
            .raw("<th>verdict</th><th>what it stands for</th><th>what it looked at</th></tr></thead>\n");
        for findings in &self.result.findings {
            let verdict = words::verdict(findings.verdict);
            page.open("tr", &[]);
            page.open("td", &[])
                .element("b", &[], &findings.checker)
                .close("td");
            page.open("td", &[])
                .element("b", &[("class", &verdict)], verdict)
                .close("td");
            cell(page, "wide", "", stands_for(findings));
            let counted = findings
                .counted
                .iter()
                .map(|(what, count)| format!("{what} {}", number(*count)));
            page.open("td", &[("class", &"wide")])
                .text(counted.collect::<Vec<_>>().join(", "));
            if !findings.missing.is_empty() {
                page.raw("<br>").element(
                    "b",
                    &[("class", &"unknown")],
                    format!("missing: {}", findings.missing.join("; ")),
                );
            }
            page.close("td").close("tr");
        }
        page.raw("</table></div>\n");
    }

    fn write_logs(&self, page: &mut Markup) {
        page.raw("<h2 id=\"logs\">What the processes said</h2>\n");
        page.raw("<p class=\"soft\">Warnings, errors, and every line within a second of a fault's beginning or end, by the clock of \
                  the process. Lines that say the same within five seconds are told once.</p>\n");
        for log in self.logs {
            let count = |level| {
                log.lines
                    .iter()
                    .filter(|line| line.level == level)
                    .map(|line| line.times)
                    .sum::<u64>()
            };
            let says = match &log.unreadable {
                Some(error) => format!(": its log cannot be read: {error}"),
                None => format!(
                    ": {}, {}",
                    many(count(Level::Error), "error"),
                    many(count(Level::Warn), "warning")
                ),
            };
            page.raw("<details><summary>")
                .text(&log.member)
                .element("span", &[], says)
                .close("summary");
            page.raw("<div class=\"scroll\"><table class=\"log\">\n");
            self.write_lines(page, log);
            page.raw("</table></div>\n");
            if log.left_out > 0 {
                page.element(
                    "p",
                    &[("class", &"soft")],
                    format!("{} left out", many(log.left_out, "more line")),
                );
            }
            page.close("details");
        }
    }

    /// The lines, with the faults where they happened.
    fn write_lines(&self, page: &mut Markup, log: &MemberLog) {
        let mut notes: Vec<(i128, String)> = Vec::new();
        for (place, fault) in self.result.faults.iter().enumerate() {
            let name = format!("{} {}", place + 1, fault.fault);
            notes.push((
                i128::from(fault.begun_ns),
                format!("{name} begins: {}", fault.what),
            ));
            notes.push((i128::from(fault.ended_ns), format!("{name} is over")));
        }
        notes.sort();
        let mut notes = notes.into_iter().peekable();
        for line in &log.lines {
            while let Some((at, note)) = notes.next_if(|(at, _)| line.at_ns.is_some_and(|line| *at <= line)) {
                write_note(page, at, &note);
            }
            let (class, level) = match line.level {
                Level::Info => ("", "info"),
                Level::Warn => ("level-warn", "warn"),
                Level::Error => ("level-error", "error"),
            };
            page.open("tr", &[]);
            cell(page, "number", "", line.at_ns.map_or(String::new(), seconds));
            cell(page, class, "", level);
            let times = if line.times > 1 {
                format!(" (and {} more like it)", number(line.times - 1))
            } else {
                String::new()
            };
            page.open("td", &[("class", &"wide")]).text(&line.text).element(
                "span",
                &[("class", &"soft")],
                times,
            );
            page.close("td").close("tr");
        }
        for (at, note) in notes {
            write_note(page, at, &note);
        }
    }

    fn write_words(&self, page: &mut Markup) {
        page.raw("<h2 id=\"words\">Words and files</h2>\n<ul>\n")
            .raw("<li><span class=\"k ok\">ok</span> it happened, and the client was told so.</li>\n")
            .raw("<li><span class=\"k fail\">fail</span> it did not happen and will not: it was refused or aborted.</li>\n")
            .raw("<li><span class=\"k info\">info</span> nobody told the client. It may have happened, or happen later.</li>\n")
            .raw("<li><b class=\"valid\">valid</b>: every checker had what it needs and found no violation, and every planned fault happened. ")
            .raw("<b class=\"unknown\">unknown</b>: something is missing, which is never a pass. ")
            .raw("<b class=\"invalid\">invalid</b>: a rule was broken.</li>\n")
            .raw("<li>In doubt: a participant has promised to commit and does not know the decision.</li>\n</ul>\n")
            .raw("<p>Beside this page: <code>history.jsonl</code> (what clients asked and were told), <code>history.edn</code> (the same as \
                  Jepsen has it), <code>evidence.json</code> (what was found afterwards), <code>result.json</code> (what the checkers found), \
                  the drawings as <code>.svg</code>, and the logs in <code>data</code>. <code>check</code> judges the folder again.</p>\n");
    }
}

fn stands_for(findings: &Findings) -> String {
    let known = checker::all();
    let checker = known.iter().find(|checker| checker.name() == findings.checker);
    checker.map_or(String::new(), |checker| checker.checks().to_owned())
}

fn write_end(page: &mut Markup, kind: Kind) {
    match kind {
        Kind::Ok => page.raw("<span class=\"k ok\">ok</span>"),
        Kind::Fail => page.raw("<span class=\"k fail\">fail</span>"),
        Kind::Info | Kind::Invoke => page.raw("<span class=\"k info\">info</span>"),
    };
}

fn write_note(page: &mut Markup, at: i128, note: &str) {
    page.open("tr", &[("class", &"note")]);
    cell(page, "number", "", seconds(at));
    cell(page, "", "", "fault");
    cell(page, "wide", "", note);
    page.close("tr");
}

/// Seconds since the history began, of a clock that may be before it.
fn seconds(ns: i128) -> String {
    format!("{:.3}", ns as f64 / 1e9)
}

/// A cell of a table. On a narrow screen it is a line that begins with `name`.
fn cell(page: &mut Markup, class: &'static str, name: &'static str, text: impl std::fmt::Display) {
    match (class, name) {
        ("", "") => page.element("td", &[], text),
        (_, "") => page.element("td", &[("class", &class)], text),
        _ => page.element("td", &[("class", &class), ("data-name", &name)], text),
    };
}

fn list(page: &mut Markup, items: &[String]) {
    page.raw("<ul>\n");
    for item in items {
        page.element("li", &[], item);
    }
    page.close("ul");
}

fn figure(page: &mut Markup, drawing: &Drawing) {
    page.raw("<figure>\n<div class=\"desk\">")
        .add(&drawing.wide)
        .close("div");
    page.raw("<div class=\"telephone\">")
        .add(&drawing.narrow)
        .close("div");
    page.element("figcaption", &[], &drawing.caption).close("figure");
}
