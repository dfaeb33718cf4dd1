use envelope_format::DataType;
use envelope_format::statistics::{Chunk, ColumnSummary};

use super::*;
use crate::settings::{Voice, Volume};

fn terminal(width: usize, color_output: bool) -> Terminal {
    Terminal {
        voice: Voice {
            json: false,
            volume: Volume::Normal,
            color_output,
            color_error: false,
            bars: false,
            log: None,
            log_json: false,
            width,
        },
    }
}

fn summary(name: &str, data_type: &str, nulls: usize, values: &Chunk<'_>) -> ColumnStatistics {
    let data_type: DataType = data_type.parse().unwrap();
    let mut summary = ColumnSummary::new(name, data_type);
    summary.add(nulls, values).unwrap();
    summary.finish()
}

fn document() -> Statistics {
    let ages: Vec<i64> = (0..20).chain([3, 3, 3]).collect();
    let regions = [["UK"; 12].as_slice(), &["\u{1b}[31mUS"; 6]].concat();
    let columns = vec![
        summary("age", "int64", 0, &Chunk::Integers(&ages)),
        summary("region", "utf8", 5, &Chunk::Texts(&regions)),
        summary("seen", "timestamp[s, UTC]", 22, &Chunk::Integers(&[0])),
        summary(
            "price",
            "float64",
            21,
            &Chunk::Floats(&[f64::NAN, f64::INFINITY]),
        ),
        summary("名前", "list<int8>", 0, &Chunk::Lengths(&[1; 23])),
    ];
    Statistics::new(
        TableStatistics { rows: 23, columns },
        TableStatistics::default(),
    )
}

#[test]
fn long_lines_are_broken_between_facts() {
    let line = "mean 8.65 ± 5.80  5% 1  25% 3  50% 8  75% 14  95% 18";
    assert_eq!(wrapped(line, 60), [line]);
    let broken = ["mean 8.65 ± 5.80  5% 1", "25% 3  50% 8  75% 14", "95% 18"];
    assert_eq!(wrapped(line, 22), broken);
    assert_eq!(wrapped("a fact without a gap", 8), ["a fact…"]);
}

#[test]
fn columns_are_drawn_under_one_another() {
    let lines = lines(&terminal(100, false), &document(), 2);
    let expected = [
        "statistics of the input, 23 rows",
        "  age     int64              1 zero, 20 distinct",
        "                             0 ▂▂▂█▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂ 19",
        "                             mean 8.65217 ± 5.80561  5% 1  25% 3  50% 8  75% 14  95% 18",
        "                             3  ████▏                      17.4%  4",
        "  region  utf8               5 missing, 2 distinct",
        "                             “\\u{1b}[31mUS” to “UK”",
    ];
    assert_eq!(lines[..7], expected, "{}", lines.join("\n"));
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for width in [40, 60, 80, 200] {
        for line in lines(&terminal(width, false), &document(), 2) {
            assert!(line.width() + 2 <= width, "{width}: {line}");
        }
    }
}

#[test]
fn colors_are_only_where_they_are_wanted() {
    let escapes = |color| {
        lines(&terminal(80, color), &document(), 2)
            .join("\n")
            .contains('\u{1b}')
    };
    assert!(escapes(true) && !escapes(false));
}

#[test]
fn all_bins_with_values_are_seen() {
    let histogram = |counts: &[u64]| Histogram {
        edges: vec![],
        counts: counts.to_vec(),
    };
    assert_eq!(sparkline(&histogram(&[0, 1, 500, 1000])), " ▁▄█");
    assert_eq!(sparkline(&histogram(&[0])), " ");
    assert_eq!(sparkline(&histogram(&[u64::MAX])), "█");
}

#[test]
fn bars_are_as_long_as_their_share() {
    assert_eq!(bar(0.5).trim_end(), "█".repeat(12));
    assert_eq!(bar(0.0).trim_end(), "");
    assert_eq!(bar(7.0), "█".repeat(24));
}
