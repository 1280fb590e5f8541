//! The chart: both runs over time, side by side on the same axes.

use std::{error::Error, fs, ops::Range, path::Path, time::Duration};

use plotters::{
    coord::{Shift, types::RangedCoordf64},
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{
    load::{Answer, RATE},
    report::{Run, as_f64, human},
    script,
    timeline::Circuit,
};

const SIZE: (u32, u32) = (1200, 860);
/// The left edges of the two columns of plots, and the width of each.
const COLUMNS: [i32; 2] = [82, 660];
const WIDTH: i32 = 520;

const FONT: &str = "DejaVu Sans, Verdana, Helvetica, sans-serif";
const INK: RGBColor = RGBColor(34, 38, 46);
const FAINT: RGBColor = RGBColor(104, 110, 122);
const GRID: RGBColor = RGBColor(226, 229, 234);
const SHADE: RGBColor = RGBColor(236, 236, 240);
const FIRST: RGBColor = RGBColor(138, 146, 160);
const REPEAT: RGBColor = RGBColor(118, 78, 160);
const SERVICE: RGBColor = RGBColor(47, 111, 178);
const FALLBACK: RGBColor = RGBColor(240, 173, 48);
const FAILED: RGBColor = RGBColor(200, 49, 64);
const CLOSED: RGBColor = RGBColor(134, 190, 154);
const OPEN: RGBColor = RGBColor(74, 80, 92);
const HALF_OPEN: RGBColor = RGBColor(86, 170, 190);

/// The answers from the bottom of a bar to its top, their colours and their names.
const ANSWERS: [(Answer, RGBColor, &str); 3] = [
    (Answer::Service, SERVICE, "answered by the service"),
    (Answer::Fallback, FALLBACK, "answered by the fallback"),
    (Answer::Nobody, FAILED, "failed"),
];

/// The time that a bar stands for.
const BAR: Duration = Duration::from_millis(200);

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Plot<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Done = Result<(), Box<dyn Error>>;

/// Draws the chart into that file.
pub(crate) fn draw(path: &Path, runs: [&Run; 2]) -> Done {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    write(&root, (20, 34), "The same ten bad seconds, bare and through a pipeline", text(24, INK))?;
    legend(&root, (20, 66), &ANSWERS.map(|(_, colour, name)| (colour, name)))?;
    for (left, run) in COLUMNS.into_iter().zip(runs) {
        heading(&root, left, run)?;
        answers(&root, left, run)?;
        latencies(&root, left, run)?;
        attempts(&root, left, run)?;
        circuit(&root, left, run)?;
    }
    Ok(root.present()?)
}

fn heading(root: &Canvas<'_>, left: i32, run: &Run) -> Done {
    write(root, (left, 104), run.name, bold(19, INK))?;
    let share = |answer| 100.0 * as_f64(run.calls(answer).count()) / as_f64(run.load.calls.len());
    let [service, fallback, failed] = ANSWERS.map(|(answer, ..)| share(answer));
    remark(root, left, 104, &format!("service {service:.0} %, fallback {fallback:.0} %, failed {failed:.0} %"))
}

/// How many calls were due in each moment, by who answered them.
fn answers(root: &Canvas<'_>, left: i32, run: &Run) -> Done {
    let top = f64::from(RATE) * 1.3;
    let mut plot = panel(root, left, 146..336, 0.0..top, "calls per second", |calls| format!("{calls:.0}"))?;
    for phase in script::phases() {
        let middle = (phase.from + phase.until).as_secs_f64() / 2.0;
        plot.draw_series([Text::new(phase.label, (middle, top * 0.93), centred(INK))])?;
    }
    let mut floor = vec![0.0; bars()];
    for (answer, colour, _) in ANSWERS {
        stack(&mut plot, &mut floor, run.calls(answer).map(|call| call.due), colour)?;
    }
    Ok(())
}

/// Every call: when it was due, and how long it took.
fn latencies(root: &Canvas<'_>, left: i32, run: &Run) -> Done {
    let label =
        |exponent: &f64| human(Duration::from_secs_f64(10_f64.powf(*exponent))).replace(".00", "").replace(".0", "");
    let mut plot = panel(root, left, 380..616, -6.2..0.8, "latency of each call", label)?;
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|q| run.latency(Answer::Service, q).map_or("-".to_owned(), human));
    remark(root, left, 366, &format!("service: p50 {p50}, p99 {p99}, p99.9 {p999}"))?;
    for (answer, colour, _) in ANSWERS {
        // A dot for each spot rather than for each call keeps the file small.
        let spot = |value: f64, size: f64| (value / size).round() * size;
        let mut spots: Vec<_> = run
            .calls(answer)
            .map(|call| (spot(call.due.as_secs_f64(), 0.04), spot(call.took.as_secs_f64().max(1e-6).log10(), 0.08)))
            .collect();
        spots.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        spots.dedup();
        plot.draw_series(spots.into_iter().map(|spot| Circle::new(spot, 2, colour.mix(0.6).filled())))?;
    }
    Ok(())
}

/// How many attempts reached the service in each moment.
fn attempts(root: &Canvas<'_>, left: i32, run: &Run) -> Done {
    let title = "attempts that reach the service, per second";
    let mut plot = panel(root, left, 660..760, 0.0..330.0, title, |n| format!("{n:.0}"))?;
    remark(root, left, 646, &format!("{} during the outage", run.during_outage().count()))?;
    if left != COLUMNS[0] {
        legend(root, (left, 646), &[(FIRST, "first attempt"), (REPEAT, "retry or hedge")])?;
    }
    let mut floor = vec![0.0; bars()];
    for (repeated, colour) in [(false, FIRST), (true, REPEAT)] {
        let attempts = run.arrivals.iter().filter(|arrival| arrival.repeated == repeated);
        stack(&mut plot, &mut floor, attempts.map(|arrival| arrival.at), colour)?;
    }
    Ok(())
}

/// The state of the circuit, above the axis of time that all plots share.
fn circuit(root: &Canvas<'_>, left: i32, run: &Run) -> Done {
    let x = |at: Duration| -> Result<i32, Box<dyn Error>> {
        Ok(left + i32::try_from(at.as_millis())? * WIDTH / i32::try_from(script::LENGTH.as_millis())?)
    };
    for second in (0..=10).step_by(2) {
        write(root, (x(Duration::from_secs(second))?, 846), &format!("{second} s"), centred(FAINT))?;
    }
    if run.circuit.is_empty() {
        write(root, (COLUMNS[0] - 62, 790), "state of the circuit", text(15, INK))?;
        return write(root, (left + WIDTH / 2, 819), "no circuit breaker", centred(FAINT));
    }
    legend(root, (left, 790), &[(CLOSED, "closed"), (OPEN, "open"), (HALF_OPEN, "half-open")])?;
    let changes = || [(Duration::ZERO, Circuit::Closed)].into_iter().chain(run.circuit.iter().copied());
    let ends = changes().skip(1).map(|(at, _)| at).chain([script::LENGTH]);
    for ((from, state), until) in changes().zip(ends) {
        let colour = match state {
            Circuit::Closed => CLOSED,
            Circuit::Open => OPEN,
            Circuit::HalfOpen => HALF_OPEN,
        };
        root.draw(&Rectangle::new([(x(from)?, 806), (x(until)?, 832)], colour.filled()))?;
    }
    Ok(())
}

/// An empty plot with the phases of the script shaded. `label` writes the values at its left edge.
fn panel<'a>(
    root: &Canvas<'a>,
    left: i32,
    y: Range<i32>,
    values: Range<f64>,
    title: &str,
    label: impl Fn(&f64) -> String,
) -> Result<Plot<'a>, Box<dyn Error>> {
    let margin = if left == COLUMNS[0] { 70 } else { 0 };
    if margin > 0 {
        write(root, (left - 62, y.start - 14), title, text(15, INK))?;
    }
    let area = root.clone().shrink((left - margin, y.start), (WIDTH + margin, y.end - y.start));
    let mut plot = ChartBuilder::on(&area)
        .set_label_area_size(LabelAreaPosition::Left, margin)
        .build_cartesian_2d(0.0..script::LENGTH.as_secs_f64(), values.clone())?;
    plot.draw_series(script::phases().iter().map(|phase| {
        let (from, until) = (phase.from.as_secs_f64(), phase.until.as_secs_f64());
        Rectangle::new([(from, values.start), (until, values.end)], SHADE.filled())
    }))?;
    plot.configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(FAINT)
        .y_labels(6)
        .y_label_formatter(&label)
        .label_style(text(14, FAINT))
        .draw()?;
    Ok(plot)
}

/// Draws bars that count these moments, on top of what is there already.
fn stack(plot: &mut Plot<'_>, floor: &mut [f64], moments: impl Iterator<Item = Duration>, colour: RGBColor) -> Done {
    let mut counts = vec![0_usize; floor.len()];
    for at in moments {
        let bar = usize::try_from(at.as_millis() / BAR.as_millis())?;
        if let Some(count) = counts.get_mut(bar) {
            *count += 1;
        }
    }
    let width = BAR.as_secs_f64();
    for (bar, (count, floor)) in counts.into_iter().zip(floor).enumerate() {
        if count > 0 {
            let (left, top) = (as_f64(bar) * width, *floor + as_f64(count) / width);
            plot.draw_series([Rectangle::new([(left + 0.015, *floor), (left + width - 0.015, top)], colour.filled())])?;
            *floor = top;
        }
    }
    Ok(())
}

fn bars() -> usize {
    usize::try_from(script::LENGTH.as_millis() / BAR.as_millis()).unwrap_or(0)
}

fn legend(root: &Canvas<'_>, (mut x, y): (i32, i32), entries: &[(RGBColor, &str)]) -> Done {
    for (colour, name) in entries {
        root.draw(&Rectangle::new([(x, y - 7), (x + 14, y + 7)], colour.filled()))?;
        write(root, (x + 20, y), name, text(14, INK))?;
        x += 40 + 8 * i32::try_from(name.len())?;
    }
    Ok(())
}

/// A remark above the right end of a plot.
fn remark(root: &Canvas<'_>, left: i32, y: i32, what: &str) -> Done {
    write(root, (left + WIDTH, y), what, text(14, INK).pos(Pos::new(HPos::Right, VPos::Center)))
}

fn write(root: &Canvas<'_>, at: (i32, i32), what: &str, style: TextStyle<'_>) -> Done {
    Ok(root.draw(&Text::new(what.to_owned(), at, style))?)
}

/// Text of that many pixels, to the right of its point and centred on its height.
fn text(pixels: u32, colour: RGBColor) -> TextStyle<'static> {
    font(pixels, FontStyle::Normal, colour)
}

fn bold(pixels: u32, colour: RGBColor) -> TextStyle<'static> {
    font(pixels, FontStyle::Bold, colour)
}

fn centred(colour: RGBColor) -> TextStyle<'static> {
    text(14, colour).pos(Pos::new(HPos::Center, VPos::Center))
}

fn font(pixels: u32, style: FontStyle, colour: RGBColor) -> TextStyle<'static> {
    // Plotters writes fonts smaller than it is told, by this factor.
    let font = (FONT, f64::from(pixels) * 1.24, style).into_font();
    font.color(&colour).pos(Pos::new(HPos::Left, VPos::Center))
}
