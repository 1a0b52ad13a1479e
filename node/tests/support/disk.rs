//! Disks of their own for peers: ext4 in a file, which can be filled, turned read-only, and lose its power.
//!
//! A power cut is ext4's own: `EXT4_IOC_SHUTDOWN` without a flush of the journal. Whatever the file system had not
//! sent to its device is gone, and every later write fails, as after a real cut; what it had sent is in the file. A
//! process that is merely killed loses nothing of this, so no test with SIGKILL alone can see a sync that is missing.
//!
//! Mounts are made in a mount namespace of the test's own. In another one a dead file system would stay referenced,
//! and the disk would go on failing after its power is back.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const INSIDE: &str = "TEST_OWN_MOUNTS";
/// What the tests below need, beside root and loop devices.
const TOOLS: [&str; 5] = ["mkfs.ext4", "mount", "umount", "unshare", "python3"];

/// `_IOR('X', 125, __u32)`, and the flag that leaves the journal as it is.
const SWITCH: &str = "
import fcntl, os, struct, sys
disks = [os.open(place, os.O_RDONLY) for place in sys.argv[1:]]
print('armed', flush=True)
sys.stdin.readline()
for disk in disks:
    fcntl.ioctl(disk, 0x8004587D, struct.pack('I', 2))
print('cut', flush=True)
";

/// Runs the body of a test in a mount namespace of its own, or says why it cannot.
pub fn with_own_mounts(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    if let Some(reason) = unfit() {
        println!("skipped {test}: {reason}");
        return;
    }
    let this = std::env::current_exe().expect("this program");
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(this)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .expect("start unshare");
    assert!(status.success(), "{test} failed in its own mount namespace: {status}");
}

fn unfit() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("only root may mount; run it as root".to_owned());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("this machine has no loop devices".to_owned());
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let there = |tool: &&&str| std::env::split_paths(&paths).any(|path| path.join(tool).exists());
    let missing = TOOLS.iter().find(|tool| !there(tool))?;
    Some(format!("`{missing}` is not installed"))
}

/// An ext4 file system in a file.
pub struct Disk {
    image: PathBuf,
    pub place: PathBuf,
}

impl Disk {
    /// Makes a disk and mounts it at a place. Call it in [`with_own_mounts`].
    pub fn mounted(image: PathBuf, place: PathBuf, bytes: u64) -> Disk {
        File::create(&image).and_then(|file| file.set_len(bytes)).expect("an image");
        let quiet = ["-q", "-F", "-m", "0"].map(AsRef::as_ref);
        run("mkfs.ext4", &[&quiet[..], &[image.as_os_str()]].concat());
        fs::create_dir_all(&place).expect("a place to mount at");
        let disk = Disk { image, place };
        disk.mount();
        disk
    }

    pub fn mount(&self) {
        let (image, place) = (self.image.as_os_str(), self.place.as_os_str());
        run("mount", &["-o".as_ref(), "loop,errors=remount-ro".as_ref(), image, place]);
    }

    pub fn unmount(&self) {
        run("umount", &[self.place.as_os_str()]);
    }

    /// Makes the file system find an error in itself, upon which it turns read-only under whoever writes.
    pub fn turn_read_only(&self) {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("a list of mounts");
        let place = self.place.to_str().expect("text");
        let ours = mounts.lines().find(|line| line.split(' ').nth(1) == Some(place));
        let device = ours.and_then(|line| line.split(' ').next()).expect("it is mounted");
        let device = device.strip_prefix("/dev/").expect("a device");
        let switch = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        fs::write(switch, "a test").expect("the file system takes it");
    }

    /// Fills the disk to the last byte with a file, which is returned.
    pub fn fill(&self) -> PathBuf {
        let path = self.place.join("ballast");
        let mut file = File::create(&path).expect("a file");
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![7; size]).is_ok() {}
        }
        // What was delayed until now fails here.
        let _ = file.sync_all();
        path
    }
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) {
    let output = Command::new(program).args(arguments).output().expect("it is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

/// A switch that cuts the power of several disks within a moment.
pub struct PowerSwitch {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl PowerSwitch {
    /// Makes ready, so that the cut itself takes no time.
    pub fn armed<'a>(disks: impl IntoIterator<Item = &'a Disk>) -> PowerSwitch {
        let mut process = Command::new("python3")
            .args(["-c", SWITCH])
            .args(disks.into_iter().map(|disk| disk.place.as_os_str()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start python3");
        let stdin = process.stdin.take().expect("a pipe");
        let stdout = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut switch = PowerSwitch { process, stdin, stdout };
        assert_eq!(switch.hear(), "armed");
        switch
    }

    /// Cuts the power. What the disks had not received is gone.
    pub fn cut(mut self) {
        self.stdin.write_all(b"\n").expect("the switch listens");
        assert_eq!(self.hear(), "cut");
        assert!(self.process.wait().expect("it ends").success());
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the switch answers");
        line.trim().to_owned()
    }
}
