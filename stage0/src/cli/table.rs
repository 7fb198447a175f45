//! The style of all tables: columns aligned with their headings, two spaces between them, no borders.

use std::fmt::Write as _;

use stage1::error::{Error, Result, escape_control};
use unicode_width::UnicodeWidthStr;

use super::screen::{self, Tone, say};

/// The number of spaces between two columns.
const GAP: usize = 2;
/// The narrowest width to which a column is cut to fit a screen.
const LEAST: usize = 8;

/// The width to which other columns are cut before one with states is.
const READABLE: usize = 12;

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
    print(&headings, rows.into_iter().map(Vec::from).collect(), whole)
}

/// [`show`], with the columns that the user chose in place of all.
///
/// # Errors
/// A chosen column does not exist, or standard output can't be written.
pub fn show_chosen<const N: usize>(
    headings: [&str; N],
    rows: Vec<[Cell; N]>,
    whole: bool,
    chosen: Option<&[String]>,
) -> Result<()> {
    show_states(headings, rows, whole, chosen, &[])
}

/// [`show_chosen`]. If all columns are shown and there is no room for the states, columns without a value are left out,
/// and then the `expendable` ones in their order.
///
/// # Errors
/// As [`show_chosen`].
pub fn show_states<const N: usize>(
    headings: [&str; N],
    rows: Vec<[Cell; N]>,
    whole: bool,
    chosen: Option<&[String]>,
    expendable: &[&str],
) -> Result<()> {
    let Some(chosen) = chosen else {
        let mut headings = headings.to_vec();
        let mut rows: Vec<Vec<Cell>> = rows.into_iter().map(Vec::from).collect();
        if let Some(width) = screen::width().filter(|_| !whole) {
            make_room(&mut headings, &mut rows, width, expendable);
        }
        return print(&headings, rows, whole);
    };
    let place = |name: &String| {
        headings.iter().position(|heading| heading.to_lowercase() == *name).ok_or_else(|| {
            let all: Vec<String> = headings.iter().map(|heading| heading.to_lowercase()).collect();
            Error::new(format!("there is no column {name:?}: choose of {}", all.join(", ")))
        })
    };
    let places: Vec<usize> = chosen.iter().map(place).collect::<Result<_>>()?;
    let headings: Vec<&str> = places.iter().map(|at| headings[*at]).collect();
    let rows = rows.iter().map(|row| places.iter().map(|at| row[*at].clone()).collect()).collect();
    print(&headings, rows, whole)
}

fn print(headings: &[&str], rows: Vec<Vec<Cell>>, whole: bool) -> Result<()> {
    let width = screen::width().filter(|_| !whole);
    say(render(headings, rows, width, screen::has_colours()).trim_end_matches('\n'))
}

/// Leaves columns out until the states fit `width` columns: those without a value, and then the expendable ones.
fn make_room(headings: &mut Vec<&str>, rows: &mut [Vec<Cell>], width: usize, expendable: &[&str]) {
    let has_no_value =
        |column: usize, rows: &[Vec<Cell>]| rows.iter().all(|row| matches!(row[column].text.as_str(), "" | "-"));
    let empty: Vec<&str> = (0..headings.len()).filter(|at| has_no_value(*at, rows)).map(|at| headings[at]).collect();
    for name in empty.into_iter().chain(expendable.iter().copied()) {
        let states = states(headings.len(), rows);
        let mut widths = widths(headings, rows);
        let whole = widths.clone();
        fit(&mut widths, &states, width);
        let is_cut = |column: usize| states[column] && widths[column] < whole[column];
        if rows.is_empty() || !(0..widths.len()).any(is_cut) {
            return;
        }
        if let Some(at) = headings.iter().position(|heading| *heading == name) {
            headings.remove(at);
            rows.iter_mut().for_each(|row| drop(row.remove(at)));
        }
    }
}

/// The widths of the widest texts of the columns.
fn widths(headings: &[&str], rows: &[Vec<Cell>]) -> Vec<usize> {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.width()).collect();
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(escape_control(&cell.text).width());
        }
    }
    widths
}

/// Which columns have states: a cell with a tone.
fn states(columns: usize, rows: &[Vec<Cell>]) -> Vec<bool> {
    (0..columns).map(|column| rows.iter().any(|row| row[column].tone.is_some())).collect()
}

/// The table as text, if possible no wider than `width` columns.
fn render(headings: &[&str], mut rows: Vec<Vec<Cell>>, width: Option<usize>, colours: bool) -> String {
    for cell in rows.iter_mut().flatten() {
        cell.text = escape_control(&cell.text);
    }
    let mut widths = widths(headings, &rows);
    if let Some(width) = width {
        fit(&mut widths, &states(headings.len(), &rows), width);
    }
    let mut text = String::new();
    let headings: Vec<Cell> = headings.iter().map(|heading| Cell::from(*heading)).collect();
    for row in std::iter::once(&headings).chain(&rows) {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let shown = cut(&cell.text, widths[column]);
            let blanks = if column + 1 == row.len() { 0 } else { widths[column] - shown.width() + GAP };
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

/// Narrows the widest columns until all fit: first those without states, as long as they stay readable.
fn fit(widths: &mut [usize], states: &[bool], width: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > width {
        let others = widths.iter_mut().zip(states).filter(|(width, is_state)| !**is_state && **width > READABLE);
        match others.map(|(width, _)| width).max() {
            Some(widest) => *widest -= 1,
            None => match widths.iter_mut().max() {
                Some(widest) if *widest > LEAST => *widest -= 1,
                _ => return,
            },
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

    const HEADINGS: [&str; 3] = ["NAME", "STATE", "APPS"];

    fn rows() -> Vec<Vec<Cell>> {
        let cell = Cell::from;
        vec![
            vec![cell("web"), Cell::toned("running", Some(Tone::Good)), cell("a, b, and many more apps")],
            vec![cell("a\nb"), cell(""), cell("日本")],
        ]
    }

    #[test]
    fn columns_are_aligned_and_cut() {
        let whole = render(&HEADINGS, rows(), None, false);
        assert_eq!(whole, "NAME  STATE    APPS\nweb   running  a, b, and many more apps\na\\nb           日本\n");
        let narrow = render(&HEADINGS, rows(), Some(30), false);
        assert!(narrow.lines().all(|line| line.width() <= 30) && narrow.contains("a, b, and many…"), "{narrow}");
        // what can't fit is not mutilated
        assert!(render(&HEADINGS, rows(), Some(3), false).contains("running"));
        assert_eq!(render(&["NAME"], Vec::new(), None, true), "NAME\n");
    }

    #[test]
    fn states_are_cut_last() {
        let cell = Cell::from;
        let state = Cell::toned("running (1 restarting, 1 unhealthy)", Some(Tone::Bad));
        let row = vec![cell("a-pod-with-quite-a-long-name"), state, cell("2/5 db,loop,ill,big,fine")];
        let shown = |width| render(&HEADINGS, vec![row.clone()], Some(width), false);
        assert!(
            shown(66).contains("a-pod-with-qu…  running (1 restarting, 1 unhealthy)  2/5 db,loop,…"),
            "{}",
            shown(66)
        );
        assert!(shown(50).contains("a-pod-with-…  running (1 restarting…"), "{}", shown(50));
    }

    #[test]
    fn what_has_no_value_or_little_makes_room_for_states() {
        let row = |state: &str| {
            ["loop", state, "-", "3m"].map(Cell::from).into_iter().enumerate().map(|(at, cell)| match at {
                1 => Cell::toned(cell.text, Some(Tone::Bad)),
                _ => cell,
            })
        };
        let shown = |state: &str, width: usize| {
            let (mut headings, mut rows) =
                (vec!["NAME", "STATE", "EXIT", "CREATED"], vec![row(state).collect::<Vec<_>>()]);
            make_room(&mut headings, &mut rows, width, &["CREATED"]);
            render(&headings, rows, Some(width), false)
        };
        let reason = "exited (exit 3, gave up after 1 restart)";
        assert!(shown("exited", 60).contains("EXIT  CREATED"));
        assert_eq!(shown(reason, 60), format!("NAME  STATE{}  CREATED\nloop  {reason}  3m\n", " ".repeat(35)));
        assert_eq!(shown(reason, 50), format!("NAME  STATE\nloop  {reason}\n"));
        assert!(shown(reason, 40).contains("loop  exited (exit 3, gave up after"));
    }

    #[test]
    fn colours_are_around_what_has_a_tone() {
        let text = render(&HEADINGS, rows(), None, true);
        assert!(text.contains("\u{1b}[32mrunning\u{1b}[0m  a, b"), "{text:?}");
        assert_eq!(text.matches('\u{1b}').count(), 2);
    }
}
