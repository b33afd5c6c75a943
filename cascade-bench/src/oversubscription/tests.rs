use clap::{CommandFactory, Parser};

use super::*;

#[test]
fn prefix_blocks_stay_while_they_fit_and_no_put_is_refused() {
    let folder = tempfile::Builder::new().prefix("cascade-test-").tempdir_in("/dev/shm").unwrap();
    for (factor, has_files) in [(1.2, false), (2.0, true), (10.0, false), (10.0, true)] {
        let name = format!("{factor}-{has_files}");
        let plan = Plan {
            memory: folder.path().join(&name),
            files: has_files.then(|| folder.path().join(name + "-files")),
            capacity_bytes: 8 << 20,
            block_bytes: 16 << 10,
            factor,
            eviction: "learned",
        };
        let (pressure, before, under) = press(&plan).unwrap();
        println!("{pressure:?}, {} hits before and {} meanwhile", before.n, under.n);
        assert_eq!((pressure.wrong, pressure.refused), (0, 0), "{pressure:?}");
        assert_eq!(pressure.fits, factor < 8.0);
        assert!(!pressure.fits || pressure.retained == pressure.prefix_blocks, "{pressure:?}");
        assert!(pressure.retained > 0 && before.latency.is_some() && under.latency.is_some());
    }
}

#[test]
fn the_command_line_of_the_suite() {
    Arguments::command().debug_assert();
    let parse = |words: &str| Arguments::try_parse_from(words.split_whitespace());
    let base = "cascade-bench --suite oversubscription";
    let arguments = parse(&format!("{base} --factor 2,3.5 --eviction lru")).unwrap();
    assert_eq!((arguments.factor, arguments.eviction.name()), (vec![2.0, 3.5], "lru"));
    for wrong in ["--factor 0", "--eviction fifo", "--capacity lots"] {
        assert!(parse(&format!("{base} {wrong}")).is_err(), "{wrong}");
    }
}
