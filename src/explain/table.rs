//! The plan as a small table.

use std::fmt;

use super::Plan;
use crate::{bounds::Bound, layer::LayerInfo};

/// No line is longer, unless a single word or a name is.
const WIDTH: usize = 99;
/// The settings get at least this much, however long the names are.
const NARROWEST: usize = 40;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pipeline {}", self.name())?;
        layers(f, self.layers())?;
        writeln!(f, "  operation")?;
        line(f, "attempts for one call", &at_most(self.attempts()))?;
        line(f, "time for one call", &at_most(self.time()))?;
        if self.time_without_hints() != self.time() {
            line(f, "  without hints", &at_most(self.time_without_hints()))?;
        }
        line(f, "load in an outage", &self.amplification().to_string())?;
        if self.warnings().is_empty() {
            return write!(f, "{:24}none", "warnings");
        }
        write!(f, "{:24}{}", "warnings", self.warnings().len())?;
        for warning in self.warnings() {
            write!(f, "\n  - ")?;
            wrapped(f, 4, [warning.to_string()])?;
        }
        Ok(())
    }
}

fn layers(f: &mut fmt::Formatter<'_>, layers: &[LayerInfo]) -> fmt::Result {
    if layers.is_empty() {
        return Ok(());
    }
    let digits = layers.len().to_string().len();
    let longest = |column: fn(&LayerInfo) -> &str, head: &str| {
        let cells = layers.iter().map(|layer| column(layer).chars().count());
        cells.fold(head.len(), usize::max)
    };
    let (names, kinds) =
        (longest(|layer| layer.name().as_str(), "layer"), longest(|layer| layer.kind().as_str(), "kind"));
    writeln!(f, "  {:>digits$}  {:names$}  {:kinds$}  settings", "#", "layer", "kind")?;
    let indent = [2, digits, 2, names, 2, kinds, 2].into_iter().fold(0, usize::saturating_add);
    for (index, layer) in layers.iter().enumerate() {
        let (number, name, kind) = (index.saturating_add(1), layer.name(), layer.kind().as_str());
        write!(f, "  {number:>digits$}  {name:names$}  ")?;
        if layer.settings().is_empty() {
            writeln!(f, "{kind}")?;
            continue;
        }
        write!(f, "{kind:kinds$}  ")?;
        settings(f, indent, layer)?;
        writeln!(f)?;
    }
    Ok(())
}

/// Breaks lines between settings, not within one.
fn settings(f: &mut fmt::Formatter<'_>, indent: usize, layer: &LayerInfo) -> fmt::Result {
    let last = layer.settings().len().saturating_sub(1);
    let shown = layer.settings().iter().enumerate().map(|(index, (field, value))| {
        let comma = if index == last { "" } else { "," };
        format!("{field} {value}{comma}")
    });
    wrapped(f, indent, shown)
}

/// Writes pieces with a space between them, from the column `indent` on, and goes on in that column of the next line
/// where one does not fit. A piece too long for a line is broken between its words.
fn wrapped(f: &mut fmt::Formatter<'_>, indent: usize, pieces: impl IntoIterator<Item = String>) -> fmt::Result {
    let width = WIDTH.saturating_sub(indent).max(NARROWEST);
    let mut used = 0_usize;
    for piece in pieces {
        let words: Vec<_> = piece.split_whitespace().collect();
        let whole = words.join(" ");
        let parts = if whole.chars().count() <= width { vec![whole.as_str()] } else { words };
        for part in parts {
            let length = part.chars().count();
            if used > 0 && used.saturating_add(1).saturating_add(length) > width {
                write!(f, "\n{:indent$}", "")?;
                used = 0;
            }
            if used > 0 {
                write!(f, " ")?;
                used = used.saturating_add(1);
            }
            write!(f, "{part}")?;
            used = used.saturating_add(length);
        }
    }
    Ok(())
}

fn line(f: &mut fmt::Formatter<'_>, what: &str, value: &str) -> fmt::Result {
    writeln!(f, "{what:24}{value}")
}

fn at_most<T>(bound: Bound<T>) -> String
where
    Bound<T>: fmt::Display,
{
    match bound {
        Bound::AtMost(_) => format!("at most {bound}"),
        Bound::Unbounded | Bound::Unknown => bound.to_string(),
    }
}
