//! Text in aligned columns.

use unicode_width::UnicodeWidthStr as _;

/// Where the text of a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows of text, as they will stand under one another.
#[derive(Debug)]
pub(crate) struct Table {
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With no rows yet, and so many columns.
    pub(crate) fn new(aligns: impl IntoIterator<Item = Align>) -> Self {
        Self {
            aligns: aligns.into_iter().collect(),
            rows: vec![],
        }
    }

    pub(crate) fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// One line for each row, without spaces at its end.
    pub(crate) fn lines(&self) -> Vec<String> {
        let widths: Vec<_> = (0..self.aligns.len())
            .map(|column| self.width(column))
            .collect();
        self.rows
            .iter()
            .map(|row| self.line(row, &widths))
            .collect()
    }

    fn width(&self, column: usize) -> usize {
        self.rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.width())
            .max()
            .unwrap_or(0)
    }

    fn line(&self, row: &[String], widths: &[usize]) -> String {
        let cells = row
            .iter()
            .zip(widths)
            .zip(&self.aligns)
            .map(|((cell, width), align)| {
                let space = " ".repeat(width.saturating_sub(cell.width()));
                match align {
                    Align::Left => format!("{cell}{space}"),
                    Align::Right => format!("{space}{cell}"),
                }
            });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_whatever_the_script() {
        let mut table = Table::new([Align::Left, Align::Right, Align::Left]);
        table.row(["größe", "1", ""]);
        table.row(["名前", "10", "x"]);
        assert_eq!(table.lines(), ["größe   1", "名前   10  x"]);
    }
}
