//! The style of all tables: columns aligned with their headings, two spaces between them, no borders.

use std::fmt::Write as _;

use stage1::error::{Result, escape_control};
use unicode_width::UnicodeWidthStr;

use super::screen::{self, Tone, say};

/// The number of spaces between two columns.
const GAP: usize = 2;
/// The narrowest width to which a column is cut to fit a screen.
const LEAST: usize = 8;

/// One cell.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    tone: Option<Tone>,
}

impl Cell {
    /// A text with a tone.
    pub fn toned(text: impl Into<String>, tone: Option<Tone>) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, None)
    }
}

/// Prints rows below their headings. On a narrow terminal it cuts the widest columns, unless `whole` is set.
///
/// # Errors
/// Standard output can't be written.
pub fn show<const N: usize>(headings: [&str; N], rows: Vec<[Cell; N]>, whole: bool) -> Result<()> {
    let width = screen::width().filter(|_| !whole);
    say(render(headings, rows, width, screen::has_colours()).trim_end_matches('\n'))
}

/// The table as text, if possible no wider than `width` columns.
fn render<const N: usize>(headings: [&str; N], rows: Vec<[Cell; N]>, width: Option<usize>, colours: bool) -> String {
    let rows: Vec<[Cell; N]> = rows
        .into_iter()
        .map(|row| row.map(|cell| Cell { text: escape_control(&cell.text).to_string(), tone: cell.tone }))
        .collect();
    let mut widths = headings.map(UnicodeWidthStr::width);
    for row in &rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(cell.text.width());
        }
    }
    if let Some(width) = width {
        fit(&mut widths, width);
    }
    let mut text = String::new();
    let headings = headings.map(Cell::from);
    for row in std::iter::once(&headings).chain(&rows) {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let shown = cut(&cell.text, widths[column]);
            let blanks = if column + 1 == N { 0 } else { widths[column] - shown.width() + GAP };
            match cell.tone.filter(|_| colours) {
                Some(tone) => _ = write!(line, "{0}{shown}{0:#}", tone.style()),
                None => line.push_str(&shown),
            }
            line.extend(std::iter::repeat_n(' ', blanks));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Narrows the widest columns until all fit.
fn fit(widths: &mut [usize], width: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > width {
        match widths.iter_mut().max() {
            Some(widest) if *widest > LEAST => *widest -= 1,
            _ => return,
        }
    }
}

/// The text if it fits `width` columns; else its start and an ellipsis.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    for c in text.chars() {
        short.push(c);
        if short.width() >= width {
            short.pop();
            break;
        }
    }
    short + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<[Cell; 3]> {
        let cell = Cell::from;
        vec![
            [cell("web"), Cell::toned("running", Some(Tone::Good)), cell("a, b, and many more apps")],
            [cell("a\nb"), cell(""), cell("日本")],
        ]
    }

    #[test]
    fn columns_are_aligned_and_cut() {
        let whole = render(["NAME", "STATE", "APPS"], rows(), None, false);
        assert_eq!(whole, "NAME  STATE    APPS\nweb   running  a, b, and many more apps\na\\nb           日本\n");
        let narrow = render(["NAME", "STATE", "APPS"], rows(), Some(30), false);
        assert!(narrow.lines().all(|line| line.width() <= 30) && narrow.contains("a, b, and many…"), "{narrow}");
        // what can't fit is not mutilated
        assert!(render(["NAME", "STATE", "APPS"], rows(), Some(3), false).contains("running"));
        assert_eq!(render(["NAME"], Vec::new(), None, true), "NAME\n");
    }

    #[test]
    fn colours_are_around_what_has_a_tone() {
        let text = render(["NAME", "STATE", "APPS"], rows(), None, true);
        assert!(text.contains("\u{1b}[32mrunning\u{1b}[0m  a, b"), "{text:?}");
        assert_eq!(text.matches('\u{1b}').count(), 2);
    }
}
