//! What was acknowledged outlives a power cut at any moment: while the store is opened, and while a tree is written
//! anew, too. The same child as in `kill`, on a disk of its own.

#[path = "../../../tests/support/disk.rs"]
#[allow(dead_code, unreachable_pub)]
mod disk;

use crate::kill::{Place, kill_again_and_again, rounds};
use disk::{Disk, PowerSwitch, with_own_mounts};

const ROUNDS_DEFAULT: u32 = 12;
const DISK_BYTES: u64 = 96 << 20;

#[test]
fn nothing_acknowledged_is_lost_when_the_power_goes() {
    with_own_mounts("power::nothing_acknowledged_is_lost_when_the_power_goes", || {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let at = directory.path();
        let disk = Disk::mounted(at.join("disk"), at.join("store"), DISK_BYTES);
        let said = kill_again_and_again(&Place::new(at), rounds(ROUNDS_DEFAULT), || {
            let switch = PowerSwitch::armed([&disk]);
            let power_up = || {
                disk.unmount();
                disk.mount();
            };
            (move || switch.cut(), power_up)
        });
        println!("each with a power cut: {said}");
        disk.unmount();
    });
}
