//! `peerdist status` beside a running `peerdist up`, with the state folder named as people name it.

use std::process::{Command, Output};

use crate::objects::{content, package, two_offices};
use crate::place::{Place, Run, without_settings_of_the_shell};

#[test]
fn status_finds_the_server_of_a_relative_or_an_absolute_state_folder() {
    let place = Place::new(114);
    place.write("app/data", &content("data", 1 << 20));
    place.objects(&(two_offices() + &package("app", "1", &place.uri("app"), "")));
    let mut up = Command::new(env!("CARGO_BIN_EXE_peerdist"));
    up.current_dir(place.path(".")).args(["up", "manifests", "--state", "state", "--output", "json"]);
    let mut run = Run::start({
        up.args(["--prefix", "127.114"]);
        up
    });
    run.until("the package is there", || place.current("store-2", "app").exists());
    let absolute = place.path("state");
    for state in ["state", absolute.to_str().unwrap()] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peerdist"));
        command.current_dir(place.path(".")).args(["status", "--state", state]);
        let Output { status, stdout, stderr } = without_settings_of_the_shell(&mut command).output().unwrap();
        let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        assert!(status.success() && said.contains("app"), "--state {state}: {said}");
    }
}
