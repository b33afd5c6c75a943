//! The document's form is a contract: this is what readers of other languages see.

use cascade_bench::report::{Ceiling, Host, Report, Row};
use cascade_bench::stats::{Latency, Spread};

const GOLDEN: &str = r#"{
  "schema": 1,
  "commit": "0123456789abcdef",
  "dirty": false,
  "host": {
    "cpu": "A CPU",
    "cores": 2,
    "memory_bytes": 24,
    "kernel": "6.1",
    "copy_plan": "copy kernel avx512",
    "load_before": 0.5
  },
  "results": [
    {
      "system": "cascade",
      "tier": "shm",
      "op": "put",
      "path": "single",
      "block_bytes": 65536,
      "threads": 1,
      "ranks": 1,
      "state": "hot",
      "n": 5,
      "gbps": {
        "min": 18.0,
        "median": 19.0,
        "max": 21.0
      },
      "latency_us": {
        "p50": 3.0,
        "p99": 4.0,
        "p999": 9.0
      },
      "ceiling": {
        "what": "memcpy",
        "gbps": 20.0
      },
      "efficiency": 0.95,
      "verified": true
    },
    {
      "system": "cascade",
      "tier": "shm",
      "op": "lookup",
      "path": "batch1000",
      "block_bytes": 4096,
      "threads": 1,
      "ranks": 1,
      "state": "hot",
      "blocks": 1000,
      "n": 5,
      "gbps": null,
      "latency_us": null,
      "ceiling": null,
      "efficiency": null,
      "verified": null
    }
  ],
  "notes": [
    "something was left out"
  ]
}"#;

#[test]
fn the_document_is_written_as_agreed() {
    let mut put = Row::new("shm", "put", "single", 65_536);
    put.n = 5;
    let spread = Spread { min: 18.0, median: 19.0, max: 21.0 };
    put.set_rate(Some(spread), Some(Ceiling { what: "memcpy".to_owned(), gbps: 20.0 }));
    put.latency_us = Some(Latency { p50: 3.0, p99: 4.0, p999: 9.0 });
    put.verified = Some(true);
    let mut lookup = Row::new("shm", "lookup", "batch1000", 4096);
    (lookup.blocks, lookup.n) = (Some(1000), 5);
    let report = Report {
        schema: 1,
        commit: Some("0123456789abcdef".to_owned()),
        dirty: false,
        host: Host {
            cpu: "A CPU".to_owned(),
            cores: 2,
            memory_bytes: 24,
            kernel: "6.1".to_owned(),
            copy_plan: "copy kernel avx512".to_owned(),
            load_before: Some(0.5),
        },
        results: vec![put, lookup],
        notes: vec!["something was left out".to_owned()],
    };
    assert_eq!(serde_json::to_string_pretty(&report).unwrap(), GOLDEN);
    assert_eq!(serde_json::from_str::<Report>(GOLDEN).unwrap(), report);
}
