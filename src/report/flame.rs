//! Functions by how long stalls in them lasted, as nested boxes of HTML.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::report::escape::Html;
use crate::report::show::Short;

/// A box of the flame graph that is narrower is left out.
const NARROWEST: f64 = 0.002;
const DEEPEST: usize = 48;

/// A function in the flame graph, and what it called.
#[derive(Debug, Default)]
pub(super) struct Flame {
    pub(super) total_ns: u64,
    children: BTreeMap<String, Flame>,
}

impl Flame {
    pub(super) fn add(&mut self, path: impl Iterator<Item = String>, ns: u64) {
        self.total_ns = self.total_ns.saturating_add(ns);
        let mut here = self;
        for name in path.take(512) {
            here = here.children.entry(name).or_default();
            here.total_ns = here.total_ns.saturating_add(ns);
        }
    }

    pub(super) fn write_children(
        &self,
        out: &mut String,
        all_ns: u64,
        depth: usize,
    ) -> fmt::Result {
        if depth == DEEPEST {
            return Ok(());
        }
        out.push_str("<div class=\"level\">");
        for (name, child) in &self.children {
            let share = child.total_ns as f64 / all_ns as f64;
            if share < NARROWEST {
                continue;
            }
            write!(
                out,
                "<div style=\"width:{:.2}%\"><div class=\"frame\" title=\"{} {}, {:.0} %\">{}</div>",
                child.total_ns as f64 / self.total_ns.max(1) as f64 * 100.0,
                Html(name),
                Short(Duration::from_nanos(child.total_ns)),
                share * 100.0,
                Html(name.rsplit("::").next().unwrap_or(name)),
            )?;
            if !child.children.is_empty() {
                child.write_children(out, all_ns, depth + 1)?;
            }
            out.push_str("</div>");
        }
        out.push_str("</div>");
        Ok(())
    }
}
