//! The results as a picture: one panel a measure, one bar a peer, with the smallest and the largest figure.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::results::{Better, Id, Kind, Measure, Results, Spread, figure};

const WIDTH: u32 = 1000;
const COLUMNS: usize = 2;
/// Of a bar, with the space after it.
const ROW: i32 = 17;
/// Above the bars of a panel.
const HEAD: i32 = 30;
/// Where the bars begin.
const LABELS: i32 = 215;
/// Right of the longest bar, for its figure.
const FIGURES: i32 = 62;
const TEXT: RGBColor = RGBColor(40, 40, 40);

/// Draws what is compared with others: what is only sameport's own is in the tables.
pub fn draw(results: &Results, file: &Path) -> Result<()> {
    let panels: Vec<_> = results.measures.iter().filter(|measure| is_drawn(measure)).collect();
    let rows: Vec<_> = panels.chunks(COLUMNS).collect();
    let height = |row: &[&Measure]| row.iter().map(|measure| panel_height(measure)).max().unwrap_or(0);
    let all: i32 = rows.iter().map(|row| height(row)).sum();
    let area = SVGBackend::new(file, (WIDTH, u32::try_from(all + 34)?)).into_drawing_area();
    area.fill(&WHITE).map_err(broken)?;
    legend(&area)?;
    let mut top = 34;
    for row in rows {
        for (column, measure) in row.iter().enumerate() {
            let left = i32::try_from(column)? * i32::try_from(WIDTH)? / COLUMNS as i32;
            let panel = area
                .clone()
                .shrink((left, top), (WIDTH / COLUMNS as u32, u32::try_from(panel_height(measure))?));
            draw_panel(&panel, measure)?;
        }
        top += height(row);
    }
    area.present().map_err(broken)
}

fn is_drawn(measure: &Measure) -> bool {
    let kinds = |kind| measure.series.iter().any(|series| series.kind == kind);
    // The p50 says little, who differ by little look alike, and of what a processor costs one is enough.
    let is_detail = measure.title.contains("p50,")
        || measure.title.ends_with("beside the limit")
        || measure.id == Id::F10
        || (measure.id == Id::F9 && !measure.title.ends_with("a new connection each"));
    kinds(Kind::Sameport) && measure.series.iter().any(|series| series.kind != Kind::Sameport) && !is_detail
}

fn panel_height(measure: &Measure) -> i32 {
    HEAD + ROW * i32::try_from(measure.series.len()).unwrap_or(0) + 14
}

fn draw_panel(area: &DrawingArea<SVGBackend<'_>, Shift>, measure: &Measure) -> Result<()> {
    let (width, _) = area.dim_in_pixel();
    let better = match measure.better {
        Better::Higher => "more is better",
        Better::Lower => "less is better",
    };
    let bold = ("sans-serif", 13).into_font().style(FontStyle::Bold).color(&TEXT);
    let head = format!("{}  {} ({better})", measure.id, short(&measure.title));
    area.draw(&Text::new(head, (12, 8), bold)).map_err(broken)?;
    let mut rows: Vec<_> =
        measure.series.iter().filter_map(|series| Some((series, Spread::of(&series.samples)?))).collect();
    rows.sort_by(|(_, a), (_, b)| match measure.better {
        Better::Higher => b.median.total_cmp(&a.median),
        Better::Lower => a.median.total_cmp(&b.median),
    });
    let longest = rows.iter().map(|(_, spread)| spread.most).fold(0.0, f64::max);
    let room = f64::from(i32::try_from(width)? - LABELS - FIGURES);
    let x = |value: f64| LABELS + if longest > 0.0 { (value / longest * room) as i32 } else { 0 };
    let plain = ("sans-serif", 11).into_font().color(&TEXT);
    for (at, (series, spread)) in rows.iter().enumerate() {
        let top = HEAD + ROW * i32::try_from(at)?;
        let middle = top + ROW / 2 - 1;
        let right = plain.clone().pos(Pos::new(HPos::Right, VPos::Center));
        let left = plain.clone().pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(series.peer.clone(), (LABELS - 6, middle), right)).map_err(broken)?;
        let bar = [(LABELS, top + 1), (x(spread.median).max(LABELS + 1), top + ROW - 4)];
        area.draw(&Rectangle::new(bar, colour(series.kind).filled())).map_err(broken)?;
        area.draw(&PathElement::new(vec![(x(spread.least), middle), (x(spread.most), middle)], TEXT))
            .map_err(broken)?;
        area.draw(&Text::new(figure(spread.median), (x(spread.most) + 5, middle), left)).map_err(broken)?;
    }
    Ok(())
}

fn legend(area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<()> {
    let plain = ("sans-serif", 12).into_font().color(&TEXT).pos(Pos::new(HPos::Left, VPos::Center));
    for (at, (kind, name)) in [
        (Kind::Sameport, "sameport"),
        (Kind::Proxy, "proxy"),
        (Kind::ProxyOnHost, "proxy, host network"),
        (Kind::Translation, "address translation"),
        (Kind::Docker, "Docker's own way"),
        (Kind::Limit, "bare processes"),
    ]
    .into_iter()
    .enumerate()
    {
        let left = 14 + 165 * i32::try_from(at)?;
        area.draw(&Rectangle::new([(left, 11), (left + 12, 23)], colour(kind).filled())).map_err(broken)?;
        area.draw(&Text::new(name, (left + 18, 17), plain.clone())).map_err(broken)?;
    }
    Ok(())
}

fn short(title: &str) -> String {
    title.replace("processor seconds of the whole host for a million", "CPU s per million requests")
}

fn colour(kind: Kind) -> RGBColor {
    match kind {
        Kind::Sameport => RGBColor(30, 110, 200),
        Kind::Proxy => RGBColor(190, 190, 190),
        Kind::ProxyOnHost => RGBColor(215, 215, 225),
        Kind::Translation => RGBColor(150, 200, 170),
        Kind::Docker => RGBColor(220, 190, 140),
        Kind::Limit => RGBColor(120, 120, 120),
    }
}

fn broken(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}
