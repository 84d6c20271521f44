//! A dyno's own disk: full for the dyno alone, and nothing of it is left for the machine.

use std::{fs, path::Path};

use dozen_domain::dyno::Exit;
use dozen_runtime::sandbox::disk;
use rustix::process::{Pid, Signal, kill_process};

use crate::dyno::{Setup, wait_until};

const MIB: u64 = 1 << 20;

fn on_disk(script: &str, bytes: u64, files: u64) -> Setup {
    let setup = Setup::bash(script);
    let template = disk::template(setup.temp.path(), bytes, files).expect("this machine has loop devices and ext4");
    setup.with(|spec| spec.sandbox.disk = Some(template))
}

/// How many loop devices have their file below this directory.
fn devices(below: &Path) -> usize {
    let backing = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("loop/backing_file")).ok();
    let blocks = fs::read_dir("/sys/block").expect("block devices").flatten();
    blocks.filter_map(backing).filter(|file| file.starts_with(&*below.to_string_lossy())).count()
}

#[test]
fn a_disk_is_full_at_its_bound_however_it_is_filled() {
    let script = "exec 2>&1; cat hello.txt; rm hello.txt; echo changed > hello.txt; cat hello.txt; \
                  head -c 8M /dev/zero > /tmp/kept && echo fits; \
                  exec 3> nameless; rm nameless; head -c 100M /dev/zero >&3; \
                  echo more > /tmp/more; exec 3>&-; echo more > /tmp/more && echo room again; df -m --output=size /tmp";
    let setup = on_disk(script, 32 * MIB, 4_096);
    let temp = setup.temp.path().to_owned();
    let mut dyno = setup.start();
    assert_eq!(dyno.exit(), Exit::Code(0));
    let output = dyno.output();
    assert!(output.starts_with("hello from the image\nchanged\nfits\n"), "{output}");
    assert_eq!(output.matches("No space left on device").count(), 2, "{output}");
    assert!(output.contains("room again"), "{output}");
    let size = output.lines().last().and_then(|size| size.trim().parse::<u64>().ok()).expect("a size");
    assert!((24..=32).contains(&size), "{output}");
    wait_until("the disk's end", || devices(&temp) == 0);
    let image = fs::read_to_string(dyno.spec.sandbox.layers[0].join("app/hello.txt")).expect("there");
    assert_eq!(image, "hello from the image\n", "the image is not changed");
}

#[test]
fn the_number_of_files_is_bounded() {
    let script = "exec 2>&1; n=0; while : > /tmp/file$n; do n=$((n + 1)); done; echo made $n";
    let mut dyno = on_disk(script, 32 * MIB, 512).start();
    dyno.exit();
    let output = dyno.output();
    let made = output.lines().last().and_then(|line| line.strip_prefix("made ")?.parse::<u32>().ok());
    assert!(made.is_some_and(|made| (400..=600).contains(&made)), "{output}");
    assert!(output.contains("No space left on device"), "{output}");
}

#[test]
fn a_disk_goes_with_its_dyno_even_when_the_shim_is_killed() {
    let setup = on_disk("head -c 4M /dev/urandom > /tmp/x; echo written; sleep 600", 32 * MIB, 512);
    let temp = setup.temp.path().to_owned();
    let dyno = setup.start();
    dyno.wait_for_output("written");
    assert_eq!(devices(&temp), 1);
    let outside = dyno.spec.sandbox.scratch.join("disk");
    assert_eq!(fs::read_dir(&outside).expect("there").count(), 0, "outside it cannot be seen");
    kill_process(Pid::from_raw(dyno.shim).expect("a pid"), Signal::KILL).expect("killed");
    wait_until("the disk's end", || devices(&temp) == 0);
}
