//! Importing, removing and repairing images.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tests::Verdict;
use tests::harness::Context;
use tests::oci::OciImage;
use tests::podctl::Podctl;
use tests::process::run_with_input;
use tests::registry::{Certificates, PASSWORD, Registry, USER, Users};

use super::{A_FEW, Trial, assert_same, names};

tests::cases! {
    native import 120;
    native import_under_a_taken_name 120;
    native image_rm 120;
    native image_verify 120;
    native import_of_layers 120;
    native pull 180;
}

/// A store in memory, made again for every point.
struct Memory<'a> {
    podctl: Podctl,
    data: &'a Path,
}

impl<'a> Memory<'a> {
    fn new(t: &'a Context, data: &'a Path) -> Self {
        fs::create_dir_all(data).expect("mkdir");
        mount(Some("none"), data, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount a tmpfs");
        Self { podctl: t.podctl(), data }
    }

    fn clear(&self) {
        for entry in fs::read_dir(self.data).expect("read the store").flatten() {
            let path = entry.path();
            let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            gone.unwrap_or_else(|e| panic!("rm {}: {e}", path.display()));
        }
    }

    /// Checks that every image is whole and that no temporary files are left.
    #[track_caller]
    fn must_be_whole(&self) {
        self.podctl.ok(&["image", "list"]);
        let said = self.podctl.run(&["image", "verify"]);
        assert!(said.code == Some(0) && said.stderr.is_empty(), "{said}");
    }

    fn ids(&self) -> Vec<String> {
        let all = self.podctl.json(&["image", "list", "--format", "json"]);
        let all = all.as_array().expect("a list").iter();
        all.map(|image| image["id"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        if let Err(errno) = umount2(self.data, MntFlags::empty()) {
            eprintln!("umount {}: {errno}", self.data.display());
        }
    }
}

/// A small root file system.
fn rootfs(t: &Context, name: &str) -> String {
    let root = t.dir.join(name);
    fs::create_dir_all(root.join("bin/deep")).expect("mkdir");
    fs::write(root.join("bin/app"), format!("{name}, the app")).expect("write");
    fs::write(root.join("bin/deep/file"), vec![7; 100_000]).expect("write");
    fs::hard_link(root.join("bin/app"), root.join("bin/same")).expect("link");
    std::os::unix::fs::symlink("bin/app", root.join("link")).expect("symlink");
    root.display().to_string()
}

fn import(t: &Context) -> Verdict {
    let data = t.dir.join("data");
    let store = Memory::new(t, &data);
    let root = rootfs(t, "root");
    let args = ["image", "import", root.as_str(), "--name", "example.com/a"];
    store.podctl.ok(&args);
    let (whole, id) = (names(&data), store.ids());
    let trial = Trial { what: "image import", follow: true, few: A_FEW };
    trial.run(&mut |_| store.clear(), &|| store.podctl.command(&args), &mut |when| {
        store.must_be_whole();
        store.podctl.run(&args).ok();
        assert_eq!(store.ids(), id, "{when}");
        assert_same(&names(&data), &whole, when);
        store.must_be_whole();
    });
    Ok(())
}

fn import_under_a_taken_name(t: &Context) -> Verdict {
    let data = t.dir.join("data");
    let store = Memory::new(t, &data);
    let (old, new) = (rootfs(t, "old"), rootfs(t, "new"));
    let import = |root| ["image", "import", root, "--name", "example.com/a"];
    store.podctl.ok(&import(&new));
    let (whole, id) = (names(&data), store.ids());
    let before = &mut |_| {
        store.clear();
        store.podctl.run(&import(&old)).ok();
    };
    let trial = Trial { what: "image import that takes a name over", follow: true, few: A_FEW };
    trial.run(before, &|| store.podctl.command(&import(&new)), &mut |when| {
        store.must_be_whole();
        // The name points to the old or the new image.
        store.podctl.ok(&["image", "show", "example.com/a"]);
        store.podctl.run(&import(&new)).ok();
        store.podctl.run(&["image", "gc"]).ok();
        assert_eq!(store.ids(), id, "{when}");
        assert_same(&names(&data), &whole, when);
        store.must_be_whole();
    });
    Ok(())
}

fn image_rm(t: &Context) -> Verdict {
    let data = t.dir.join("data");
    let store = Memory::new(t, &data);
    let root = rootfs(t, "root");
    let import = ["image", "import", root.as_str(), "--name", "example.com/a"];
    store.podctl.ok(&import);
    let id = store.ids().remove(0);
    let whole = names(&data);
    let rm = ["image", "rm", id.as_str()];
    store.podctl.ok(&rm);
    let empty = names(&data);
    let before = &mut |_| {
        store.podctl.run(&import).ok();
        assert_same(&names(&data), &whole, "before");
    };
    let trial = Trial { what: "image rm", follow: true, few: A_FEW };
    trial.run(before, &|| store.podctl.command(&rm), &mut |when| {
        store.must_be_whole();
        if store.ids().is_empty() {
            store.podctl.fails(&rm);
        } else {
            store.podctl.ok(&rm);
        }
        store.podctl.ok(&["image", "gc"]);
        assert_same(&names(&data), &empty, when);
    });
    Ok(())
}

fn image_verify(t: &Context) -> Verdict {
    let data = t.dir.join("data");
    let store = Memory::new(t, &data);
    let root = rootfs(t, "root");
    store.podctl.ok(&["image", "import", root.as_str(), "--name", "example.com/a"]);
    let (id, whole) = (store.ids().remove(0), names(&data));
    let file = data.join("trees").join(&id).join("rootfs/bin/deep/file");
    let manifest = data.join("images").join(&id).join("manifest");
    let verify = ["image", "verify", id.as_str()];
    let before = &mut |_| {
        fs::write(&file, "damaged").expect("damage a tree");
        fs::write(&manifest, "damaged").expect("damage a manifest");
    };
    let trial = Trial { what: "image verify", follow: true, few: A_FEW };
    trial.run(before, &|| store.podctl.command(&verify), &mut |when| {
        store.podctl.run(&["image", "list"]).ok();
        store.podctl.run(&verify).ok();
        store.must_be_whole();
        assert_eq!(fs::metadata(&file).expect("the file").len(), 100_000, "{when}");
        store.podctl.ok(&["image", "gc"]);
        assert_same(&names(&data), &whole, when);
    });
    Ok(())
}

/// An image of four layers, one of which removes a file of another.
fn layered(t: &Context) -> String {
    let trees: Vec<_> = ["one", "two", "three"].iter().map(|name| PathBuf::from(rootfs(t, name))).collect();
    fs::write(trees[2].join("bin/.wh.same"), "").expect("write");
    let image = OciImage::stack(&t.dir.join("image"), &trees);
    image.layout(&t.dir.join("layout"), "1")
}

/// Kills a command that imports an image with layers, and runs it again.
fn brings_layers(t: &Context, what: &str, words: &[&str]) {
    let data = t.dir.join("data");
    let store = Memory::new(t, &data);
    store.podctl.ok(words);
    let (whole, id) = (names(&data), store.ids());
    let trial = Trial { what, follow: true, few: A_FEW };
    trial.run(&mut |_| store.clear(), &|| store.podctl.command(words), &mut |when| {
        store.must_be_whole();
        assert!(store.ids().is_empty() || store.ids() == id, "{when}");
        store.podctl.run(words).ok();
        assert_eq!(store.ids(), id, "{when}");
        assert_same(&names(&data), &whole, when);
        store.must_be_whole();
    });
}

fn import_of_layers(t: &Context) -> Verdict {
    let layout = layered(t);
    brings_layers(t, "image import of layers", &["image", "import", &layout, "--name", "a"]);
    Ok(())
}

fn pull(t: &Context) -> Verdict {
    let certificates = Certificates::new(&t.dir.join("certificates"));
    let registry = Registry::start(&t.dir.join("registry"), &certificates, 5000, Users::Password);
    let name = format!("{}/a:1", registry.host);
    registry.copy(&layered(t), &format!("docker://{name}"));
    let auth = format!("--authfile={}", t.dir.join("auth.json").display());
    let trust = certificates.option();
    let login = ["login", "--username", USER, "--password-stdin", &registry.host, &auth, &trust];
    run_with_input(&mut t.podctl().command(&login), PASSWORD).ok();
    for (what, more) in [("image pull", None), ("image pull that keeps blobs", Some("--keep-blobs"))] {
        let words: Vec<&str> = ["image", "pull", &name, &auth, &trust].into_iter().chain(more).collect();
        brings_layers(t, what, &words);
    }
    Ok(())
}
