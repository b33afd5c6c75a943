use super::*;
use crate::report::{Ceiling, Row};
use crate::stats::Spread;

/// The names of the elements, when every tag that opens also closes, in order.
fn elements(svg: &str) -> Option<Vec<String>> {
    let (mut open, mut names) = (Vec::new(), Vec::new());
    for tag in svg.split('<').skip(1) {
        let (tag, _) = tag.split_once('>')?;
        let name = tag.split([' ', '\n', '/']).find(|word| !word.is_empty())?.to_owned();
        if tag.starts_with('/') {
            (open.pop()? == name).then_some(())?;
        } else if !tag.starts_with(['?', '!']) {
            names.push(name.clone());
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
    }
    open.is_empty().then_some(names)
}

fn drawn(name: &str, draw: impl FnOnce(&std::path::Path) -> cascade_core::Result<()>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    draw(&path).unwrap();
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn bars_are_drawn_with_their_words() {
    let bar = |label: &str, value: f64| Bar { label: label.to_owned(), value, note: format!("{value} s") };
    let chart = [bar("recompute", 5.2), bar("arena <2>", 0.3), bar("nothing", 0.0)];
    let svg = drawn("bars.svg", |path| bars(path, "Time to first token", &chart));
    let names = elements(&svg).expect("well-formed");
    // The background and three bars.
    assert_eq!(names.iter().filter(|name| *name == "rect").count(), 4);
    for words in ["Time to first token", "recompute", "5.2 s", "arena &lt;2&gt;"] {
        assert!(svg.contains(words), "{words} in {svg}");
    }
}

#[test]
fn bars_refuse_what_has_no_length() {
    let path = std::env::temp_dir().join("never-drawn.svg");
    let bar = Bar { label: String::new(), value: f64::NAN, note: String::new() };
    for chart in [&[][..], &[bar]] {
        assert_eq!(bars(&path, "", chart).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    assert!(!path.exists());
}

#[test]
fn curves_are_drawn_for_each_path_and_its_ceiling() {
    let row = |op: &str, block_bytes, median| {
        let mut row = Row::new("shm", op, "single", block_bytes);
        let ceiling = Ceiling { what: "copy".to_owned(), gbps: 25.0 };
        row.set_rate(Some(Spread { min: 1.0, median, max: 30.0 }), Some(ceiling));
        row
    };
    let rows = [row("put", 1 << 16, 20.0), row("put", 1 << 29, 22.0), row("get", 1 << 16, 21.0)];
    let svg = drawn("curves.svg", |path| curves(path, "Rates", &rows));
    assert!(elements(&svg).expect("well-formed").iter().any(|name| name == "polyline"));
    for words in ["cascade put single x1", "cascade get single x1", "dashed: ceiling", "GB/s"] {
        assert!(svg.contains(words), "{words} in {svg}");
    }
    let latency = [Row::new("shm", "lookup", "single", 4096)];
    assert!(curves(std::path::Path::new("/nowhere.svg"), "", &latency).is_err());
}
