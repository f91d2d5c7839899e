//! The report as one HTML file that needs nothing else.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::clock;
use crate::histogram::Summary;
use crate::report::escape::{Html, HtmlCode, HtmlProse};
use crate::report::flame::Flame;
use crate::report::markdown::{groups, load, operation, plural, problem, verify, worst};
use crate::report::show::Short;
use crate::report::{Hotspot, Report, score, strategy, trace};
use crate::stall::Stall;

const STYLE: &str = include_str!("report.css");
/// Stalls drawn one by one, the longest first.
const MAX_DRAWN: usize = 2_000;
/// Findings told in full.
const MAX_FINDINGS: usize = 50;
/// Rows of the table: a report that was read may have any number of findings.
const MAX_ROWS: usize = 1_000;

impl Report {
    /// The report as one self-contained HTML file: no script, no network.
    ///
    /// What comes from the program, names and paths, is escaped.
    pub fn to_html(&self) -> String {
        let mut html = String::new();
        // Writing to a string does not fail.
        let _ = self.write_html(&mut html);
        html
    }

    fn write_html(&self, out: &mut String) -> fmt::Result {
        let score = score::score(self);
        write!(
            out,
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <title>Event loop audit</title><style>{STYLE}</style></head><body><main>\n\
             <h1>Event loop audit</h1>\n\
             <p class=\"score\"><strong>{}</strong> of 10: {}</p>\n\
             <p>{} in {} on {}.</p>\n",
            score.value,
            score::meaning(score.value),
            plural(self.counts.total(), "stall"),
            Short(self.watched_for()),
            plural(self.workers as u64, "worker"),
        )?;
        if !score.deductions.is_empty() {
            out.push_str("<ul>");
            for (points, reason) in &score.deductions {
                write!(out, "<li>minus {points}: {}</li>", Html(reason))?;
            }
            out.push_str("</ul>\n");
        }
        if let Some(left_out) = &score.left_out {
            writeln!(out, "<p>{left_out}</p>")?;
        }
        self.write_table(out)?;
        self.write_timeline(out)?;
        self.write_flames(out)?;
        out.push_str("<h2>The loop</h2>\n<div class=\"pair\">");
        write_histogram(out, "Time per poll", &self.polls)?;
        write_histogram(out, "Lag", &self.lag)?;
        writeln!(out, "</div>\n<p>{}</p>", load(self))?;
        self.write_pools(out)?;
        self.write_findings(out)?;
        self.write_origins(out)?;
        out.push_str("</main></body></html>\n");
        Ok(())
    }

    fn write_table(&self, out: &mut String) -> fmt::Result {
        if self.hotspots.is_empty() {
            out.push_str("<p>Nothing held a worker up for longer than the threshold.</p>\n");
            return Ok(());
        }
        out.push_str(
            "<h2>Hotspots</h2>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" \
             aria-label=\"Hotspots\"><table><thead><tr><th>Severity</th><th>Where</th>\
             <th>Operation</th><th>Stalls</th><th>Longest</th><th>In all</th><th>Fix</th></tr>\
             </thead><tbody>\n",
        );
        for (number, hotspot) in self.hotspots.iter().take(MAX_ROWS).enumerate() {
            let place = Html(&hotspot.culprit);
            let place = if number < MAX_FINDINGS {
                format!("<a href=\"#f{}\"><code>{place}</code></a>", number + 1)
            } else {
                format!("<code>{place}</code>")
            };
            writeln!(
                out,
                "<tr><td><span class=\"sev {}\">{}</span></td><td>{place}\
                 </td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
                 <td class=\"n\">{}</td><td>{}</td></tr>",
                worst(hotspot),
                worst(hotspot),
                Html(operation(hotspot)),
                hotspot.counts.total(),
                Short(hotspot.max()),
                Short(hotspot.total()),
                hotspot.advice.complexity,
            )?;
        }
        out.push_str("</tbody></table></div>\n");
        let more = self.hotspots.len().saturating_sub(MAX_ROWS);
        if more > 0 {
            writeln!(
                out,
                "<p>{} more are in the JSON.</p>",
                plural(more as u64, "finding")
            )?;
        }
        for (title, hotspots) in groups(self) {
            write!(out, "<h3>{title}</h3><ul>")?;
            for hotspot in hotspots.iter().take(MAX_FINDINGS) {
                write!(
                    out,
                    "<li><code>{}</code>: {}</li>",
                    Html(&hotspot.culprit),
                    HtmlProse(&hotspot.advice.short),
                )?;
            }
            out.push_str("</ul>\n");
        }
        Ok(())
    }

    fn write_timeline(&self, out: &mut String) -> fmt::Result {
        let mut stalls: Vec<&Stall> = self.stalls.iter().collect();
        if stalls.is_empty() {
            return Ok(());
        }
        stalls.sort_by_key(|stall| std::cmp::Reverse(stall.duration_ns));
        stalls.truncate(MAX_DRAWN);
        // Processes have clocks of their own: each begins with its first stall.
        let mut begin: BTreeMap<u64, u64> = BTreeMap::new();
        for stall in &stalls {
            let first = begin.entry(stall.origin).or_insert(u64::MAX);
            *first = (*first).min(stall.start_ns);
        }
        let from = |stall: &Stall| {
            stall.start_ns
                - begin
                    .get(&stall.origin)
                    .copied()
                    .unwrap_or(0)
                    .min(stall.start_ns)
        };
        let span = stalls
            .iter()
            .map(|stall| from(stall).saturating_add(stall.duration_ns))
            .max();
        let span = span.unwrap_or(0).max(1) as f64;
        let mut rows: BTreeMap<(u64, Option<usize>), Vec<&Stall>> = BTreeMap::new();
        for stall in stalls {
            rows.entry((stall.origin, stall.worker()))
                .or_default()
                .push(stall);
        }
        let height = rows.len() * 26 + 22;
        write!(
            out,
            "<h2>Timeline</h2>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Timeline\"><svg class=\"timeline\" viewBox=\"0 0 1000 {height}\" role=\"img\" \
             aria-label=\"Stalls by worker over {}\">\n",
            Short(Duration::from_nanos(span as u64)),
        )?;
        for (row, ((_, worker), stalls)) in rows.into_iter().enumerate() {
            let y = row * 26;
            let name =
                worker.map_or_else(|| "thread".to_owned(), |worker| format!("worker {worker}"));
            write!(
                out,
                "<text x=\"0\" y=\"{}\">{name}</text><rect class=\"row\" x=\"90\" y=\"{y}\" \
                 width=\"910\" height=\"22\"/>",
                y + 16
            )?;
            for stall in stalls {
                let x = 90.0 + from(stall) as f64 / span * 910.0;
                let width = (stall.duration_ns as f64 / span * 910.0).max(1.5);
                writeln!(
                    out,
                    "<rect class=\"{}\" x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"22\">\
                     <title>{}</title></rect>",
                    stall.severity(),
                    Html(stall),
                )?;
            }
        }
        writeln!(
            out,
            "<text x=\"90\" y=\"{y}\">0</text><text x=\"1000\" y=\"{y}\" text-anchor=\"end\">{}</text></svg></div>",
            Short(Duration::from_nanos(span as u64)),
            y = height - 4,
        )?;
        let more = self.stalls.len().saturating_sub(MAX_DRAWN) as u64;
        let more = more.saturating_add(self.forgotten);
        if more > 0 {
            writeln!(out, "<p>{} more are not drawn.</p>", plural(more, "stall"))?;
        }
        Ok(())
    }

    fn write_flames(&self, out: &mut String) -> fmt::Result {
        let mut root = Flame::default();
        for stall in &self.stalls {
            for place in stall.places() {
                let path = trace::path_of_users(place.stack());
                root.add(path, clock::ns_of(place.time()));
            }
        }
        if root.total_ns == 0 {
            return Ok(());
        }
        out.push_str(
            "<h2>Where the time went</h2>\n<p>Functions by how long stalls in them held workers \
             up; what was called is below its caller.</p>\n<div class=\"flames\">",
        );
        root.write_children(out, root.total_ns, 0)?;
        out.push_str("</div>\n");
        Ok(())
    }

    fn write_pools(&self, out: &mut String) -> fmt::Result {
        let pools = strategy::pools(self);
        if pools.is_empty() {
            return Ok(());
        }
        out.push_str("<h2>Threads for it</h2>\n<ul>");
        for pool in pools {
            write!(
                out,
                "<li>{}: {} ({}{})</li>",
                pool.category,
                plural(pool.threads as u64, "thread"),
                pool.arithmetic,
                if pool.queue {
                    "; more than that arrives: a queue that refuses"
                } else {
                    ""
                },
            )?;
        }
        out.push_str("</ul>\n");
        Ok(())
    }

    fn write_findings(&self, out: &mut String) -> fmt::Result {
        if self.hotspots.is_empty() {
            return Ok(());
        }
        out.push_str("<h2>Findings</h2>\n");
        for (number, hotspot) in self.hotspots.iter().take(MAX_FINDINGS).enumerate() {
            write_finding(out, number + 1, hotspot)?;
        }
        let more = self.hotspots.len().saturating_sub(MAX_FINDINGS);
        if more > 0 {
            writeln!(
                out,
                "<p>{} more are not told in full.</p>",
                plural(more as u64, "finding")
            )?;
        }
        Ok(())
    }

    fn write_origins(&self, out: &mut String) -> fmt::Result {
        if self.origins.is_empty() {
            return Ok(());
        }
        out.push_str("<h2>Processes</h2>\n<ul>");
        for origin in self.origins.iter().take(MAX_ROWS) {
            write!(
                out,
                "<li>{}, {}</li>",
                Html(origin),
                plural(origin.cpus() as u64, "CPU"),
            )?;
        }
        out.push_str("</ul>\n");
        Ok(())
    }
}

fn write_finding(out: &mut String, number: usize, hotspot: &Hotspot) -> fmt::Result {
    let advice = &hotspot.advice;
    let durations = &hotspot.durations;
    let (confidence, reason) = hotspot.confidence();
    let tasks: Vec<String> = hotspot
        .tasks()
        .map(|(name, _)| format!("<code>{}</code>", Html(name)))
        .collect();
    write!(
        out,
        "<article id=\"f{number}\"><h3><span class=\"sev {0}\">{0}</span> <code>{1}</code></h3><dl>\
         <dt>Location</dt><dd><code>{1}</code>{2}</dd>\
         <dt>Risk category</dt><dd>{3}</dd>\
         <dt>The problem</dt><dd>{4}</dd>\
         <dt>Blocking duration</dt><dd>{5}, min {6}, p50 {7}, p99 {8}, max {9}, total {10}; \
         confidence {confidence}: {reason}</dd>",
        worst(hotspot),
        Html(&hotspot.culprit),
        if tasks.is_empty() {
            String::new()
        } else {
            format!(", in {}", tasks.join(", "))
        },
        advice.category,
        HtmlProse(problem(hotspot)),
        plural(durations.count(), "stall"),
        Short(durations.min()),
        Short(durations.p50()),
        Short(durations.p99()),
        Short(durations.max()),
        Short(durations.total()),
    )?;
    write!(
        out,
        "<dt>How to verify</dt><dd><pre>{}</pre></dd><dt>The fix</dt><dd>{}<pre>{}</pre></dd>\
         <dt>Trade-off</dt><dd>{}</dd></dl>",
        HtmlCode(&verify(hotspot).1),
        HtmlProse(&advice.short),
        HtmlCode(&advice.fix),
        HtmlProse(&advice.trade_off),
    )?;
    if let Some(stack) = hotspot.stack() {
        out.push_str("<details><summary>Stack of the longest</summary><pre>");
        for frame in stack.frames() {
            writeln!(out, "{}", Html(frame.short()))?;
        }
        out.push_str("</pre></details>");
    }
    out.push_str("</article>\n");
    Ok(())
}

/// Durations in bars, a decade in three.
fn write_histogram(out: &mut String, title: &str, summary: &Summary) -> fmt::Result {
    write!(
        out,
        "<figure><figcaption>{title}: {}",
        plural(summary.count(), "time")
    )?;
    if summary.count() == 0 {
        out.push_str("</figcaption></figure>");
        return Ok(());
    }
    write!(
        out,
        ", p50 {}, p99 {}, max {}</figcaption>",
        Short(summary.p50()),
        Short(summary.p99()),
        Short(summary.max()),
    )?;
    let mut bars: BTreeMap<i32, u64> = BTreeMap::new();
    for (duration, count) in summary.buckets() {
        let bar = (duration.as_nanos().max(1) as f64).log10() * 3.0;
        let bar: &mut u64 = bars.entry(bar.floor() as i32).or_default();
        *bar = bar.saturating_add(count);
    }
    let highest = bars.values().max().copied().unwrap_or(1) as f64;
    let (Some(first), Some(last)) = (bars.keys().next(), bars.keys().next_back()) else {
        out.push_str("</figure>");
        return Ok(());
    };
    let width = 300.0 / f64::from(last - first + 1);
    out.push_str("<svg viewBox=\"0 0 300 96\" role=\"img\" aria-label=\"How many by duration\">");
    for (bar, count) in &bars {
        // By the logarithm: the rare ones matter most.
        let height = ((*count as f64).ln_1p() / highest.ln_1p() * 76.0).max(2.0);
        let from = Duration::from_nanos(10_f64.powf(f64::from(*bar) / 3.0) as u64);
        write!(
            out,
            "<rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\">\
             <title>{} from {}</title></rect>",
            f64::from(bar - first) * width,
            80.0 - height,
            (width - 1.0).max(1.0),
            count,
            Short(from),
        )?;
    }
    write!(
        out,
        "<text x=\"0\" y=\"94\">{}</text><text x=\"300\" y=\"94\" text-anchor=\"end\">{}</text></svg></figure>",
        Short(summary.min()),
        Short(summary.max()),
    )
}
