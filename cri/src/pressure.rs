//! Pressure stall information of a cgroup: the kernel's documentation of PSI. It is cgroup v2's; on a host with v1 the
//! unified hierarchy has it, too, as far as processes are in it.

use crate::api::{PsiData, PsiStats};
use crate::usage::Files;

/// The pressure on a resource: `cpu`, `memory` or `io`. `None` if the kernel does not tell it.
pub fn of(files: &Files, resource: &str) -> Option<PsiStats> {
    parse(&files.unified(&format!("{resource}.pressure"))?)
}

/// Parses lines such as `some avg10=0.00 avg60=0.12 avg300=0.00 total=1234`, whose total is in microseconds.
fn parse(text: &str) -> Option<PsiStats> {
    let data = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let word = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let average = |name: &str| word(name)?.parse::<f64>().ok();
        Some(PsiData {
            total: word("total")?.parse::<u64>().ok()?.saturating_mul(1000),
            avg10: average("avg10")?,
            avg60: average("avg60")?,
            avg300: average("avg300")?,
        })
    };
    // older kernels have no `full` for processors
    Some(PsiStats { some: Some(data("some")?), full: data("full") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let some = "some avg10=1.50 avg60=0.12 avg300=0.00 total=1234\n";
        let read = parse(&format!("{some}full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n")).unwrap();
        let data = read.some.unwrap();
        assert_eq!((data.total, data.avg10, data.avg60, data.avg300), (1_234_000, 1.5, 0.12, 0.0));
        assert_eq!(read.full.unwrap().total, 7000);
        assert_eq!(parse(some).unwrap().full, None);
        for bad in ["", "some", "some avg10=0.00 total=x", "something avg10=0.00 avg60=0.00 avg300=0.00 total=1"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
