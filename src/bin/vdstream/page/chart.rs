//! Pictures as SVG. Their colours are names that the style sheet gives another value in the dark.

use plotters::element::Rectangle;
use plotters::prelude::{ChartBuilder, IntoDrawingArea as _, LineSeries, RGBColor, SVGBackend, Text};
use plotters::series::AreaSeries;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, IntoFont as _, ShapeStyle, TextStyle};
use vdstream::backup::Course;
use vdstream::{Error, ErrorKind, Result};

/// Raw bytes, and whatever stands alone.
pub(super) const RAW: RGBColor = RGBColor(0x25, 0x63, 0xEB);
/// Stored bytes.
pub(super) const STORED: RGBColor = RGBColor(0xD9, 0x77, 0x06);
/// What others waited for longest.
pub(super) const LONGEST: RGBColor = RGBColor(0xDC, 0x26, 0x26);
const TEXT: RGBColor = RGBColor(0x37, 0x41, 0x51);
const LINE: RGBColor = RGBColor(0xE5, 0xE7, 0xEB);

/// For whom a picture is drawn: letters keep their size, so a narrow screen has a picture of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Width {
    pub(super) pixels: u32,
    /// The class that the style sheet knows it by.
    pub(super) class: &'static str,
}

pub(super) const WIDTHS: [Width; 2] = [Width { pixels: 760, class: "wide" }, Width { pixels: 340, class: "narrow" }];

/// One bar with what is written above it.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) value: String,
    /// Shares of the whole width, each a bar of its own.
    pub(super) parts: Vec<(f64, RGBColor)>,
}

/// Rates over time: raw bytes as an area, stored bytes as a line.
pub(super) fn throughput(course: &Course, width: Width) -> Result<String> {
    let (raw, stored) = (steps(course, &course.raw_bytes), steps(course, &course.stored_bytes));
    let highest = raw.iter().chain(&stored).map(|(_, rate)| *rate).fold(1.0, f64::max);
    let (divisor, unit) =
        scale(highest, &[(1.0, "B/s"), (KIB, "KiB/s"), (KIB * KIB, "MiB/s"), (KIB * KIB * KIB, "GiB/s")]);
    let end = raw.last().map_or(0.1, |(time, _)| *time);
    let (span, time) = scale(end, &[(1.0, "seconds"), (60.0, "minutes"), (3600.0, "hours")]);
    let scaled = |steps: &[(f64, f64)]| -> Vec<(f64, f64)> {
        steps.iter().map(|(at, rate)| (at / span, rate / divisor)).collect()
    };
    let (raw, stored) = (scaled(&raw), scaled(&stored));
    svg(width.pixels, 260, |backend| {
        let area = backend.into_drawing_area();
        let font = TextStyle::from(("sans-serif", FONT).into_font()).color(&TEXT);
        let mut chart = ChartBuilder::on(&area)
            .margin_top(12)
            .margin_right(16)
            .x_label_area_size(44)
            .y_label_area_size(68)
            .build_cartesian_2d(0.0..end / span, 0.0..highest / divisor * 1.1)
            .map_err(failed)?;
        let labels = usize::try_from(width.pixels / 85).unwrap_or(4);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(LINE.mix(0.0))
            .bold_line_style(LINE)
            .axis_style(LINE)
            .label_style(font.clone())
            .axis_desc_style(font)
            .x_labels(labels)
            .y_labels(5)
            .x_label_formatter(&number)
            .y_label_formatter(&number)
            .x_desc(time)
            .y_desc(unit)
            .draw()
            .map_err(failed)?;
        let line = |color: RGBColor| ShapeStyle { color: color.to_rgba(), filled: false, stroke_width: 2 };
        chart.draw_series(AreaSeries::new(raw, 0.0, RAW.mix(0.2)).border_style(line(RAW))).map_err(failed)?;
        chart.draw_series(LineSeries::new(stored, line(STORED))).map_err(failed)?;
        area.present().map_err(failed)
    })
}

/// Bars one below the other, each under its words.
pub(super) fn bars(bars: &[Bar], width: Width) -> Result<String> {
    let heights: Vec<i32> = bars.iter().map(|bar| ROW + THICK * i32::try_from(bar.parts.len()).unwrap_or(1)).collect();
    let height = u32::try_from(heights.iter().sum::<i32>()).unwrap_or(1).max(1);
    svg(width.pixels, height, |backend| {
        let area = backend.into_drawing_area();
        let right = i32::try_from(width.pixels).unwrap_or(i32::MAX);
        let words = |at| TextStyle::from(("sans-serif", FONT).into_font()).color(&TEXT).pos(Pos::new(at, VPos::Top));
        let mut top = 0;
        for (bar, height) in bars.iter().zip(heights) {
            area.draw(&Text::new(bar.label.clone(), (0, top), words(HPos::Left))).map_err(failed)?;
            area.draw(&Text::new(bar.value.clone(), (right, top), words(HPos::Right))).map_err(failed)?;
            for (nth, (share, color)) in (0..).zip(&bar.parts) {
                let y = top + LETTERS + nth * THICK;
                let rect = |end: i32, style: ShapeStyle| {
                    area.draw(&Rectangle::new([(0, y), (end, y + THICK - 3)], style)).map_err(failed)
                };
                rect(right, LINE.filled())?;
                #[expect(clippy::cast_possible_truncation, reason = "a share of the width")]
                let end = (share.clamp(0.0, 1.0) * f64::from(right)).round() as i32;
                if end > 0 {
                    rect(end, color.filled())?;
                }
            }
            top += height;
        }
        area.present().map_err(failed)
    })
}

const FONT: i32 = 16;
/// Height of the letters of a bar, of one bar, and of a row without its bars.
const LETTERS: i32 = 19;
const THICK: i32 = 11;
const ROW: i32 = LETTERS + 10;
const KIB: f64 = 1024.0;

fn svg(width: u32, height: u32, draw: impl FnOnce(SVGBackend<'_>) -> Result<()>) -> Result<String> {
    let mut text = String::new();
    draw(SVGBackend::with_string(&mut text, (width, height)))?;
    Ok(text)
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Internal, "cannot draw a chart").with_source(error)
}

/// Corners of a stair, in seconds and bytes per second.
#[expect(clippy::cast_precision_loss, reason = "a picture")]
fn steps(course: &Course, bytes: &[u64]) -> Vec<(f64, f64)> {
    let span = course.span_millis as f64 / 1000.0;
    let end = course.millis as f64 / 1000.0;
    let mut corners = Vec::with_capacity(bytes.len() * 2);
    for (nth, bytes) in bytes.iter().enumerate() {
        let from = nth as f64 * span;
        // The last span may have just begun; a rate over a moment would be a needle.
        let length = (end - from).clamp(span / 2.0, span);
        corners.extend([(from, *bytes as f64 / length), (from + length, *bytes as f64 / length)]);
    }
    corners
}

/// The largest unit that `value` has at least one of.
fn scale(value: f64, units: &[(f64, &'static str)]) -> (f64, &'static str) {
    units.iter().rev().find(|(size, _)| value >= *size).or_else(|| units.first()).copied().unwrap_or((1.0, ""))
}

/// A label of an axis, without the noise of binary fractions.
fn number(value: &f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(millis: u64, span_millis: u64, raw_bytes: &[u64]) -> Course {
        let mut course = Course::new(&Default::default(), std::time::Duration::from_millis(millis), 2);
        course.span_millis = span_millis;
        course.raw_bytes = raw_bytes.to_vec();
        course.stored_bytes = raw_bytes.iter().map(|bytes| bytes / 2).collect();
        course
    }

    #[test]
    fn a_stair_has_the_rate_of_each_span_and_no_needle_at_its_end() {
        let course = course(2100, 1000, &[1000, 0, 500]);
        assert_eq!(
            steps(&course, &course.raw_bytes),
            [(0.0, 1000.0), (1.0, 1000.0), (1.0, 0.0), (2.0, 0.0), (2.0, 1000.0), (2.5, 1000.0)]
        );
    }

    #[test]
    fn anything_can_be_drawn() {
        for course in [
            course(0, 100, &[]),
            course(1, 100, &[0]),
            course(1, 100, &[u64::MAX; 40]),
            course(u64::MAX, u64::MAX, &[7]),
        ] {
            for width in WIDTHS {
                let picture = throughput(&course, width).unwrap();
                assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"), "{picture}");
                assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
            }
        }
        let bar =
            |share| Bar { label: "<a&b>".to_owned(), value: "1".to_owned(), parts: vec![(share, RAW), (0.5, STORED)] };
        let picture = bars(&[bar(0.0), bar(1.0), bar(f64::NAN), bar(7.0)], WIDTHS[1]).unwrap();
        assert!(picture.contains("&lt;a&amp;b&gt;") && !picture.contains("<a"), "{picture}");
        assert!(bars(&[], WIDTHS[0]).unwrap().contains("</svg>"));
    }

    #[test]
    fn labels_are_short() {
        for (value, text) in [(0.0, "0"), (0.1 + 0.2, "0.3"), (2.0, "2"), (12.5, "12.5"), (100.0, "100")] {
            assert_eq!(number(&value), text);
        }
        assert_eq!(scale(1536.0, &[(1.0, "B"), (1024.0, "KiB")]), (1024.0, "KiB"));
        assert_eq!(scale(0.0, &[(1.0, "B"), (1024.0, "KiB")]), (1.0, "B"));
    }
}
