//! The document's form is a contract: this is what readers of other languages see.

use cascade_bench::report::{
    Calls, Ceiling, Census, Files, Host, Made, Opening, Origin, Report, Row, Space, Throughput,
};
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
      "verified": null,
      "index_bytes": 91.5
    },
    {
      "system": "cascade",
      "tier": "shm",
      "op": "lease",
      "path": "processes8 hot",
      "block_bytes": 4096,
      "threads": 8,
      "ranks": 8,
      "state": "hot",
      "n": 5,
      "gbps": null,
      "latency_us": null,
      "ceiling": null,
      "efficiency": null,
      "verified": true,
      "throughput": {
        "per_second": {
          "min": 18.0,
          "median": 19.0,
          "max": 21.0
        },
        "member_per_second": {
          "min": 18.0,
          "median": 19.0,
          "max": 21.0
        },
        "of_one": 1.5
      }
    },
    {
      "system": "cascade",
      "tier": "shm",
      "op": "put",
      "path": "churn",
      "block_bytes": 65536,
      "threads": 1,
      "ranks": 1,
      "state": "hot",
      "n": 40,
      "gbps": null,
      "latency_us": null,
      "ceiling": null,
      "efficiency": null,
      "verified": true,
      "space": {
        "sizes": "log-normal, median 64KiB, sigma 1.5, 4KiB to 64MiB",
        "data_bytes": 4294967296,
        "puts": 1000000,
        "used_share": {
          "min": 18.0,
          "median": 19.0,
          "max": 21.0
        },
        "payload_share": {
          "min": 18.0,
          "median": 19.0,
          "max": 21.0
        },
        "evictions_per_put": 1.25,
        "refused": 2,
        "puts_per_second": 14000.5,
        "before": {
          "private_bytes": 1,
          "fds": 2,
          "blocks": 3,
          "odd_slots": 4,
          "retired_slots": 5,
          "ledger_entries": 6,
          "disagreements": 7
        },
        "after": {
          "private_bytes": 0,
          "fds": 0,
          "blocks": 0,
          "odd_slots": 0,
          "retired_slots": 0,
          "ledger_entries": 0,
          "disagreements": 0
        }
      }
    },
    {
      "system": "cascade",
      "tier": "pfs",
      "op": "get",
      "path": "end",
      "block_bytes": 65536,
      "threads": 8,
      "ranks": 1,
      "state": "cold",
      "n": 9,
      "gbps": {
        "min": 18.0,
        "median": 19.0,
        "max": 21.0
      },
      "latency_us": null,
      "ceiling": null,
      "efficiency": null,
      "verified": true,
      "files": {
        "durability": "end",
        "engine": "cascade-pfs",
        "io_bytes": 8388608,
        "depth": 8,
        "direct": true,
        "of_fio": {
          "min": 18.0,
          "median": 19.0,
          "max": 21.0
        },
        "origin": {
          "resident_bytes": 0,
          "device_bytes": 4096,
          "payload_bytes": 4096,
          "dropped": "posix_fadvise"
        },
        "made": {
          "payload_bytes": 1,
          "files": 2,
          "file_bytes": 3,
          "allocated_bytes": 4,
          "device_bytes": 5,
          "calls": {
            "creates": 1,
            "opens": 2,
            "removes": 3,
            "lists": 4,
            "attributes": 5,
            "syncs": 6,
            "writes": 7,
            "reads": 8
          },
          "files_limit": 6
        }
      }
    },
    {
      "system": "cascade",
      "tier": "pfs",
      "op": "open",
      "path": "logs",
      "block_bytes": 1048576,
      "threads": 1,
      "ranks": 1,
      "state": "cold",
      "blocks": 1000000,
      "n": 5,
      "gbps": null,
      "latency_us": null,
      "ceiling": null,
      "efficiency": null,
      "verified": true,
      "opening": {
        "index_bytes": 128000000,
        "open_s": {
          "min": 18.0,
          "median": 19.0,
          "max": 21.0
        },
        "first_hit_s": {
          "min": 18.0,
          "median": 19.0,
          "max": 21.0
        },
        "last_hit_s": {
          "min": 18.0,
          "median": 19.0,
          "max": 21.0
        },
        "scan_mb_per_s": {
          "min": 18.0,
          "median": 19.0,
          "max": 21.0
        }
      }
    }
  ],
  "notes": [
    "something was left out"
  ]
}"#;

fn space(share: Spread) -> Space {
    Space {
        sizes: "log-normal, median 64KiB, sigma 1.5, 4KiB to 64MiB".to_owned(),
        data_bytes: 4 << 30,
        puts: 1_000_000,
        used_share: share,
        payload_share: share,
        evictions_per_put: 1.25,
        refused: 2,
        puts_per_second: 14_000.5,
        before: Census {
            private_bytes: 1,
            fds: 2,
            blocks: 3,
            odd_slots: 4,
            retired_slots: 5,
            ledger_entries: 6,
            disagreements: 7,
        },
        after: Census::default(),
    }
}

fn of_files(spread: Spread) -> Row {
    let mut row = Row::new("pfs", "get", "end", 65_536);
    "cold".clone_into(&mut row.state);
    (row.threads, row.n, row.gbps, row.verified) = (8, 9, Some(spread), Some(true));
    let calls =
        Calls { creates: 1, opens: 2, removes: 3, lists: 4, attributes: 5, syncs: 6, writes: 7, reads: 8 };
    let made = Made {
        payload_bytes: 1,
        files: 2,
        file_bytes: 3,
        allocated_bytes: 4,
        device_bytes: Some(5),
        calls: Some(calls),
        files_limit: Some(6),
    };
    let origin = Origin {
        resident_bytes: Some(0),
        device_bytes: Some(4096),
        payload_bytes: 4096,
        dropped: Some("posix_fadvise".to_owned()),
    };
    row.files = Some(Files {
        durability: "end".to_owned(),
        engine: "cascade-pfs".to_owned(),
        io_bytes: 8 << 20,
        depth: 8,
        direct: Some(true),
        of_fio: Some(spread),
        of_plain: None,
        of_vllm: None,
        origin: Some(origin),
        made: Some(made),
    });
    row
}

fn opened(spread: Spread) -> Row {
    let mut row = Row::new("pfs", "open", "logs", 1 << 20);
    "cold".clone_into(&mut row.state);
    (row.blocks, row.n, row.verified) = (Some(1_000_000), 5, Some(true));
    row.opening = Some(Opening {
        index_bytes: 128_000_000,
        open_s: spread,
        first_hit_s: spread,
        last_hit_s: spread,
        scan_mb_per_s: spread,
    });
    row
}

#[test]
fn the_document_is_written_as_agreed() {
    let mut put = Row::new("shm", "put", "single", 65_536);
    put.n = 5;
    let spread = Spread { min: 18.0, median: 19.0, max: 21.0 };
    put.set_rate(Some(spread), Some(Ceiling { what: "memcpy".to_owned(), gbps: 20.0 }));
    put.latency_us = Some(Latency { p50: 3.0, p99: 4.0, p999: 9.0 });
    put.verified = Some(true);
    let mut lookup = Row::new("shm", "lookup", "batch1000", 4096);
    (lookup.blocks, lookup.n, lookup.index_bytes) = (Some(1000), 5, Some(91.5));
    let mut lease = Row::new("shm", "lease", "processes8 hot", 4096);
    (lease.threads, lease.ranks, lease.n, lease.verified) = (8, 8, 5, Some(true));
    lease.throughput = Some(Throughput { per_second: spread, member_per_second: spread, of_one: 1.5 });
    let mut churn = Row::new("shm", "put", "churn", 65_536);
    (churn.n, churn.verified, churn.space) = (40, Some(true), Some(space(spread)));
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
        results: vec![put, lookup, lease, churn, of_files(spread), opened(spread)],
        notes: vec!["something was left out".to_owned()],
    };
    assert_eq!(serde_json::to_string_pretty(&report).unwrap(), GOLDEN);
    assert_eq!(serde_json::from_str::<Report>(GOLDEN).unwrap(), report);
}
