//! What the store does, as spans and events of the crate `tracing`, under the target `cascade`. A program that has a subscriber gets
//! them; one that has none can have them written to standard error with `CASCADE_LOG`. With neither a span costs a look at one word.
//!
//! | span | fields | level |
//! |---|---|---|
//! | `open`, `flush`, `clear` | | info |
//! | `put`, `get`, `lease`, `pin`, `delete`, `demote` | `blocks`, and what came of it | debug |
//! | `rise`, `sink`: blocks on their way up and down | `blocks`, `bytes` | debug |
//! | `batch`: one that was submitted, from its begin to its end | `operations` | debug |
//! | `locate` | `blocks`, `hits` | trace |

use std::io::IsTerminal;

use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The environment variable that turns the log on: a level (`error`, `warn`, `info`, `debug`, `trace`), or a list of `target=level`.
pub(crate) const VARIABLE: &str = "CASCADE_LOG";

/// What a value of [`VARIABLE`] asks for; `None` for what means off, and the reason for what is not understood.
fn parse(value: &str) -> Result<Option<Targets>, String> {
    if matches!(value.trim(), "" | "0" | "off") {
        return Ok(None);
    }
    value.parse().map(Some).map_err(|error| {
        format!(
            "cascade: {VARIABLE} = {value:?} is not understood, and nothing is logged: {error}. A level is needed (error, warn, \
             info, debug, trace), or target=level, as in cascade=debug"
        )
    })
}

/// Writes spans as they end, with their times, to standard error, if [`VARIABLE`] asks for that and the program has no subscriber.
/// Later calls do nothing.
pub(crate) fn begin() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| match std::env::var(VARIABLE).map(|value| parse(&value)) {
        Ok(Ok(Some(targets))) => {
            let lines = tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(std::io::stderr().is_terminal())
                .with_thread_names(true)
                .with_span_events(FmtSpan::CLOSE)
                .with_filter(targets);
            // Refused where the program has one: then it gets the spans.
            let _ = tracing_subscriber::registry().with(lines).try_init();
        }
        Ok(Err(wrong)) => eprintln!("{wrong}"),
        Ok(Ok(None)) | Err(_) => {}
    });
}

/// A span of the store, entered until the guard is dropped.
macro_rules! span {
    ($level:ident, $name:literal $(, $field:ident = $value:expr)* $(,)?) => {
        ::tracing::span!(target: "cascade", ::tracing::Level::$level, $name $(, $field = $value)*)
    };
}
pub(crate) use span;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_a_list_and_off_are_understood_and_other_things_said() {
        assert!(parse("debug").unwrap().is_some() && parse("cascade=trace,other=warn").unwrap().is_some());
        assert!(["", "off", "0", " "].iter().all(|off| parse(off).unwrap().is_none()));
        let said = parse("cascade=loud").unwrap_err();
        assert!(said.contains("CASCADE_LOG") && said.contains("loud"), "{said}");
    }

    #[test]
    fn without_a_subscriber_nothing_is_on() {
        let span = span!(DEBUG, "put", blocks = 3_u64);
        assert!(span.is_disabled());
    }
}
