//! Each finding on a planted machine that has it, and none of them on a healthy one.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use cascade_core::copy::Kernel;
use cascade_shm::HugePages;

use super::machine::{Machine, Space};
use super::{Finding, Severity, examine};

const GIB: u64 = 1 << 30;

/// A planted machine: 64 GiB, one memory node, an arena of 8 GiB in `/dev/shm/cascade`.
struct Planted {
    root: tempfile::TempDir,
    machine: Machine,
}

impl Planted {
    fn healthy() -> Self {
        let root = tempfile::tempdir().unwrap();
        let machine = Machine {
            root: root.path().to_owned(),
            environment: BTreeMap::new(),
            dir: "/dev/shm/cascade".into(),
            arena: None,
            capacity_bytes: Some(8 * GIB),
            taken_bytes: 0,
            huge: HugePages::default(),
            space: Some(Space { total_bytes: 32 * GIB, free_bytes: 30 * GIB }),
            kernel: Kernel::Avx512,
            copy_plan: "avx512".into(),
            copy_notes: Vec::new(),
        };
        let mut planted = Self { root, machine };
        let uid = nix::unistd::geteuid();
        planted
            .mounts("25 24 0:23 / /dev/shm rw - tmpfs tmpfs rw,size=32g,huge=within_size")
            .write("/proc/self/stat", "1 (x) R")
            .write("/proc/self/cgroup", "0::/user.slice\n")
            .write(
                "/proc/self/status",
                &format!("Umask:\t0022\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nMems_allowed_list:\t0\n"),
            )
            .write("/proc/meminfo", "MemTotal: 67108864 kB\nMemAvailable: 60000000 kB\nSwapTotal: 0 kB\n")
            .limit("", "")
            .write("/proc/sys/kernel/osrelease", "6.8.0-generic\n")
            .write(
                "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
                "always within_size advise [never] deny force\n",
            )
            .write("/sys/devices/system/node/has_memory", "0\n");
        std::fs::create_dir(planted.machine.at("/dev/shm")).unwrap();
        planted.directory(0o700)
    }

    fn write(&mut self, path: &str, text: &str) -> &mut Self {
        let file = self.machine.at(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
        self
    }

    fn mounts(&mut self, shm: &str) -> &mut Self {
        let text =
            format!("22 27 0:21 / /proc rw - proc proc rw\n27 1 254:0 / / rw - ext4 /dev/sda rw\n{shm}\n");
        std::fs::create_dir_all(self.root.path().join("dev")).unwrap();
        self.write("/proc/self/mountinfo", &text)
    }

    /// All limits unlimited but one.
    fn limit(&mut self, name: &str, soft: &str) -> &mut Self {
        let names = ["Max open files", "Max locked memory", "Max address space", "Max file size"];
        let line =
            |of: &str| format!("{of:25} {:20} unlimited\n", if of == name { soft } else { "unlimited" });
        self.write("/proc/self/limits", &names.map(line).concat())
    }

    fn status(&mut self, name: &str, value: &str) -> &mut Self {
        let text = self.machine.read("/proc/self/status").unwrap();
        let line = |line: &str| {
            if line.starts_with(name) { format!("{name}:\t{value}\n") } else { format!("{line}\n") }
        };
        let text: String = text.lines().map(line).collect();
        self.write("/proc/self/status", &text)
    }

    fn directory(mut self, mode: u32) -> Self {
        let dir = self.machine.at("/dev/shm/cascade");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)).unwrap();
        self.machine.taken_bytes = 0;
        self
    }

    fn logind(&mut self, text: &str) -> &mut Self {
        std::fs::create_dir_all(self.machine.at("/run/systemd/users")).unwrap();
        self.status("Uid", "1000\t1000\t1000\t1000").write("/etc/systemd/logind.conf", text);
        self.write("/etc/passwd", "root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n")
    }

    fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.machine.environment.insert(name.into(), value.into());
        self
    }

    fn find(&self, check: &str) -> Vec<Finding> {
        examine(&self.machine).into_iter().filter(|finding| finding.check == check).collect()
    }

    /// The one finding of `check`, which must be of `severity` and, unless it is ok, have a cure.
    #[track_caller]
    fn expect(&self, check: &str, severity: Severity) -> Finding {
        let found = self.find(check);
        assert_eq!(found.len(), 1, "{check} in {:#?}", examine(&self.machine));
        assert_eq!(found[0].severity, severity, "{:#?}", found[0]);
        assert_eq!(found[0].cure.is_some(), severity != Severity::Ok, "{:#?}", found[0]);
        found[0].clone()
    }
}

fn planted(change: impl FnOnce(&mut Planted)) -> Planted {
    let mut planted = Planted::healthy();
    change(&mut planted);
    planted
}

#[test]
fn a_healthy_machine_has_nothing_to_cure() {
    let healthy = Planted::healthy();
    let found = examine(&healthy.machine);
    let bad: Vec<_> = found.iter().filter(|finding| finding.severity != Severity::Ok).collect();
    assert_eq!(bad, Vec::<&Finding>::new());
    let names: Vec<_> = found.iter().map(|finding| finding.check).collect();
    let expected = [
        "shm.filesystem",
        "shm.size",
        "shm.directory",
        "shm.umask",
        "shm.arena",
        "memory.available",
        "memory.cgroup",
        "memory.swap",
        "session.remove_ipc",
        "session.private_shm",
        "process.liveness",
        "limits.open_files",
        "limits.memlock",
        "limits.address_space",
        "limits.file_size",
        "pages.huge",
        "numa.nodes",
        "cpu.copy_kernel",
        "system.kernel",
    ];
    assert_eq!(names, expected, "a check that says nothing on a healthy machine did not look");
}

#[test]
fn a_directory_that_is_not_writable_memory() {
    let disk = planted(|p| {
        p.mounts("25 24 8:1 / /dev/shm rw - ext4 /dev/sdb rw");
    });
    assert!(disk.expect("shm.filesystem", Severity::Problem).found.contains("ext4"));
    let frozen = planted(|p| {
        p.mounts("25 24 0:23 / /dev/shm ro - tmpfs tmpfs rw,huge=always");
    });
    assert!(frozen.expect("shm.filesystem", Severity::Problem).cure.unwrap().contains("remount,rw"));
    let hidden = planted(|p| {
        p.mounts("25 24 0:23 / /dev/shm rw - tmpfs a rw\n9 25 8:1 / /dev/shm rw - xfs b rw");
    });
    assert!(hidden.expect("shm.filesystem", Severity::Problem).found.contains("xfs"));
}

#[test]
fn too_little_room() {
    let space =
        |total, free| planted(|p| p.machine.space = Some(Space { total_bytes: total, free_bytes: free }));
    let docker = space(64 << 20, 64 << 20).expect("shm.size", Severity::Problem);
    assert!(docker.cure.unwrap().contains("--shm-size"));
    assert!(
        space(32 * GIB, 4 * GIB).expect("shm.size", Severity::Problem).cure.unwrap().contains("cascade gc")
    );
    // What the arena has taken already it does not need again.
    let mut grown = space(32 * GIB, 4 * GIB);
    grown.machine.taken_bytes = 8 * GIB;
    grown.expect("shm.size", Severity::Ok);
    let mut default = space(64 << 20, 60 << 20);
    default.machine.capacity_bytes = None;
    default.expect("shm.size", Severity::Problem);
}

#[test]
fn a_directory_that_others_have() {
    let open = Planted::healthy().directory(0o755);
    assert_eq!(
        open.expect("shm.directory", Severity::Problem).cure.unwrap(),
        "chmod go-rwx /dev/shm/cascade"
    );
    let theirs = planted(|p| {
        p.status("Uid", "77\t77\t77\t77");
    });
    assert!(theirs.expect("shm.directory", Severity::Problem).cure.unwrap().contains("CASCADE_SHM_PATH"));
    let link = planted(|p| {
        let dir = p.machine.at("/dev/shm/cascade");
        std::fs::remove_dir(&dir).unwrap();
        std::os::unix::fs::symlink("/tmp", dir).unwrap();
    });
    link.expect("shm.directory", Severity::Problem);
    let absent = planted(|p| p.machine.dir = "/dev/shm/not-yet".into());
    absent.expect("shm.directory", Severity::Ok);
    let nowhere = planted(|p| p.machine.dir = "/dev/shm/a/b".into());
    assert!(
        nowhere.expect("shm.directory", Severity::Problem).cure.unwrap().starts_with("mkdir -p /dev/shm/a")
    );
    planted(|p| {
        p.status("Umask", "0777");
    })
    .expect("shm.umask", Severity::Problem);
}

#[test]
fn an_arena_that_stores_refuse() {
    let arena = |arena| planted(|p| p.machine.arena = Some(arena));
    arena(Ok("32MiB".into())).expect("shm.arena", Severity::Ok);
    arena(Err("it is damaged".into())).expect("shm.arena", Severity::Problem);
}

#[test]
fn too_little_memory() {
    let meminfo = |text: &str| {
        planted(|p| {
            p.write("/proc/meminfo", text);
        })
    };
    let little = meminfo("MemAvailable: 4000000 kB\nSwapTotal: 0 kB\n");
    assert!(
        little.expect("memory.available", Severity::Problem).cure.unwrap().contains("CASCADE_SHM_CAPACITY")
    );
    let swapping = "MemAvailable: 60000000 kB\nSwapTotal: 1000000 kB\n";
    meminfo(swapping).expect("memory.swap", Severity::Note);
    let mut pinned = meminfo(swapping);
    pinned.mounts("25 24 0:23 / /dev/shm rw - tmpfs tmpfs rw,noswap,huge=always");
    pinned.expect("memory.swap", Severity::Ok);
}

#[test]
fn a_group_limit_of_either_version_on_any_level() {
    let second = planted(|p| {
        p.write("/proc/self/cgroup", "0::/slurm/job_7/step_0\n")
            .write("/sys/fs/cgroup/slurm/memory.max", "max\n");
        p.write("/sys/fs/cgroup/slurm/job_7/memory.max", &(4 * GIB).to_string());
        p.write("/sys/fs/cgroup/slurm/job_7/memory.current", "1000000\n").set("SLURM_JOB_ID", "7");
    });
    let found = second.expect("memory.cgroup", Severity::Problem);
    assert!(found.source.contains("job_7/memory.max") && found.cure.unwrap().contains("sbatch --mem"));
    let first = |limit: u64| {
        planted(|p| {
            p.write("/proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/\n");
            p.write("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", &limit.to_string());
            p.write("/sys/fs/cgroup/memory/a/b/memory.usage_in_bytes", "0");
        })
    };
    first(4 * GIB).expect("memory.cgroup", Severity::Problem);
    assert!(first(16 * GIB).expect("memory.cgroup", Severity::Ok).found.contains("limit 16GiB"));
    // What version 1 writes for none.
    assert!(first(0x7fff_ffff_ffff_f000).expect("memory.cgroup", Severity::Ok).found.contains("no limit"));
    // In a container the group's own path is not there, and the root is its group.
    let container = planted(|p| {
        p.write("/proc/self/cgroup", "0::/../../docker/abc\n");
        p.write("/sys/fs/cgroup/memory.max", &(2 * GIB).to_string());
    });
    container.expect("memory.cgroup", Severity::Problem);
}

#[test]
fn logind_that_deletes_at_logout() {
    let on = planted(|p| {
        p.logind("[Login]\n#KillUserProcesses=no\n");
    });
    assert!(on.expect("session.remove_ipc", Severity::Problem).cure.unwrap().contains("enable-linger alice"));
    planted(|p| {
        p.logind("[Login]\nRemoveIPC=yes\n");
    })
    .expect("session.remove_ipc", Severity::Problem);
    for off in ["[Login]\nRemoveIPC=no\n", "[Login]\n#RemoveIPC=no\n"] {
        planted(|p| {
            p.logind(off);
        })
        .expect("session.remove_ipc", Severity::Ok);
    }
    let dropped_in = planted(|p| {
        p.logind("[Login]\nRemoveIPC=no\n");
        p.write("/usr/lib/systemd/logind.conf.d/50-vendor.conf", "[Login]\nRemoveIPC=no\n");
        p.write("/run/systemd/logind.conf.d/90-site.conf", "[Login]\nRemoveIPC=yes\n");
    });
    assert!(dropped_in.expect("session.remove_ipc", Severity::Problem).source.contains("90-site.conf"));
    let lingers = planted(|p| {
        p.logind("").write("/var/lib/systemd/linger/alice", "");
    });
    lingers.expect("session.remove_ipc", Severity::Ok);
    let system = planted(|p| {
        p.logind("").status("Uid", "64\t64\t64\t64");
    });
    system.expect("session.remove_ipc", Severity::Ok);
    let elsewhere = planted(|p| {
        p.logind("");
        p.machine.dir = "/mnt-shared/cascade".into();
    });
    elsewhere.expect("session.remove_ipc", Severity::Ok);
}

#[test]
fn a_shm_of_the_job_alone() {
    const NAME: &str = "session.private_shm";
    let slurm = |plugin: &str, container: &str| {
        planted(|p| {
            p.write("/etc/slurm/slurm.conf", &format!("ClusterName=x\n{plugin}\nPrologFlags=contain\n"));
            p.write("/etc/slurm/job_container.conf", container);
        })
    };
    let plugin = "jobcontainertype=job_container/tmpfs";
    assert!(
        slurm(plugin, "BasePath=/local").expect(NAME, Severity::Note).found.contains("/dev/shm of its own")
    );
    slurm("NamespaceType=namespace/tmpfs", "").expect(NAME, Severity::Note);
    slurm(plugin, "BasePath=/local Dirs=/tmp,/var/tmp").expect(NAME, Severity::Ok);
    slurm("JobContainerType=job_container/none", "").expect(NAME, Severity::Ok);
    slurm("#JobContainerType=job_container/tmpfs", "").expect(NAME, Severity::Ok);
    let own = planted(|p| {
        p.set("SLURM_JOB_ID", "7").write("/proc/1/mountinfo", "25 24 0:99 / /dev/shm rw - tmpfs tmpfs rw\n");
    });
    assert!(own.expect(NAME, Severity::Note).found.contains("job 7"));
    let same = planted(|p| {
        p.set("SLURM_JOB_ID", "7").write("/proc/1/mountinfo", "25 24 0:23 / /dev/shm rw - tmpfs tmpfs rw\n");
    });
    same.expect(NAME, Severity::Ok);
    let bound = planted(|p| {
        p.set("SLURM_JOB_ID", "7").mounts("25 24 0:23 /job7 /dev/shm rw - tmpfs tmpfs rw,huge=always");
    });
    bound.expect(NAME, Severity::Note);
    planted(|p| {
        p.write("/.dockerenv", "");
    })
    .expect(NAME, Severity::Note);
}

#[test]
fn limits_of_the_process() {
    let limit = |name: &str, soft: &str| {
        planted(|p| {
            p.limit(name, soft);
        })
    };
    limit("Max open files", "64").expect("limits.open_files", Severity::Problem);
    limit("Max open files", "1024").expect("limits.open_files", Severity::Ok);
    limit("Max locked memory", "8388608").expect("limits.memlock", Severity::Note);
    limit("Max locked memory", "99999999999").expect("limits.memlock", Severity::Ok);
    limit("Max address space", "4000000000").expect("limits.address_space", Severity::Problem);
    limit("Max file size", "4000000000").expect("limits.file_size", Severity::Problem);
    let without_proc = planted(|p| std::fs::remove_file(p.machine.at("/proc/self/stat")).unwrap());
    without_proc.expect("process.liveness", Severity::Problem);
}

#[test]
fn pages_of_every_kind() {
    let plain = "25 24 0:23 / /dev/shm rw - tmpfs tmpfs rw";
    let older = |p: &mut Planted| {
        p.mounts(plain).write("/proc/sys/kernel/osrelease", "5.15.0-100\n");
    };
    let small = planted(older);
    assert!(small.expect("pages.huge", Severity::Note).cure.unwrap().contains("huge=within_size /dev/shm"));
    let policy = |chosen: &str| {
        let text = "always advise never deny force".replace(chosen, &format!("[{chosen}]"));
        planted(|p| {
            p.write("/sys/kernel/mm/transparent_hugepage/shmem_enabled", &text);
        })
    };
    policy("deny").expect("pages.huge", Severity::Note);
    policy("force").expect("pages.huge", Severity::Ok);
    let mut tiny = planted(older);
    tiny.machine.capacity_bytes = Some(GIB / 2);
    tiny.expect("pages.huge", Severity::Ok);
    let mut newer = planted(|p| {
        p.mounts(plain);
    });
    assert!(newer.expect("pages.huge", Severity::Ok).found.contains("put them together"));
    newer.machine.taken_bytes = GIB;
    newer.machine.huge = HugePages { bytes: GIB / 4, refusals: 7, error: Some(12) };
    let refused = newer.expect("pages.huge", Severity::Note);
    assert!(
        refused.found.starts_with("25 % of the arena")
            && refused.found.contains("refused 7 (Cannot allocate")
    );
    newer.machine.huge.bytes = GIB;
    newer.expect("pages.huge", Severity::Ok);
    let pool = |free: u64, size: &str| {
        planted(|p| {
            p.mounts(&format!("25 24 0:23 / /dev/shm rw - hugetlbfs hugetlbfs rw,pagesize={size}"));
            p.write("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "5000\n");
            p.write("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", &free.to_string());
            p.write("/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "50\n");
        })
    };
    pool(5000, "2M").expect("pages.pool", Severity::Ok);
    let few = pool(150, "2M").expect("pages.pool", Severity::Problem);
    assert!(few.found.starts_with("100 of 5000") && few.cure.unwrap().contains("echo 90"), "{}", few.found);
    assert!(pool(5000, "1G").expect("pages.pool", Severity::Problem).found.contains("at most 2MiB"));
}

#[test]
fn memory_nodes() {
    let nodes = |allowed: &str, kib: u64| {
        planted(|p| {
            p.write("/sys/devices/system/node/has_memory", "0-1\n").status("Mems_allowed_list", allowed);
            for node in 0..2 {
                let file = format!("/sys/devices/system/node/node{node}/meminfo");
                p.write(&file, &format!("Node {node} MemTotal:       {kib} kB\n"));
            }
        })
    };
    assert!(nodes("0-1", 33_000_000).expect("numa.nodes", Severity::Ok).found.contains("2 nodes"));
    nodes("1", 33_000_000).expect("numa.nodes", Severity::Note);
    nodes("1", 4_000_000).expect("numa.nodes", Severity::Problem);
    let mut bound = nodes("0-1", 33_000_000);
    bound.mounts("25 24 0:23 / /dev/shm rw - tmpfs tmpfs rw,huge=always,mpol=bind:0");
    bound.expect("numa.policy", Severity::Note);
}

#[test]
fn processors_and_kernels() {
    let kernel = |kernel| planted(|p| p.machine.kernel = kernel);
    kernel(Kernel::Scalar).expect("cpu.copy_kernel", Severity::Problem);
    kernel(Kernel::Sse).expect("cpu.copy_kernel", Severity::Note);
    let mut forced = kernel(Kernel::Scalar);
    forced.set("CASCADE_COPY_KERNEL", "scalar");
    assert_eq!(
        forced.expect("cpu.copy_kernel", Severity::Problem).cure.unwrap(),
        "unset CASCADE_COPY_KERNEL"
    );
    let wrong = planted(|p| p.machine.copy_notes = vec!["CASCADE_COPY_THREADS=99 has no effect".into()]);
    wrong.expect("cpu.copy_setting", Severity::Note);
    let release = |text: &str| {
        planted(|p| {
            p.write("/proc/sys/kernel/osrelease", text);
        })
    };
    release("3.10.0-1160.el7").expect("system.kernel", Severity::Problem);
    assert!(release("4.18.0-553.el8").expect("system.kernel", Severity::Note).found.contains("pidfd"));
    assert!(!release("5.10.0").expect("system.kernel", Severity::Note).found.contains("pidfd"));
}

#[test]
fn this_machine_is_read() {
    let here = Machine::here(&cascade_shm::ArenaConfig::new("/dev/shm/cascade"));
    let names: Vec<_> = examine(&here).into_iter().map(|finding| finding.check).collect();
    for name in ["shm.filesystem", "shm.size", "memory.available", "limits.open_files", "system.kernel"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
}
