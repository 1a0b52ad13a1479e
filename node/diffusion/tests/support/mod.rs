//! What several tests need: the golden model, a copy of it to damage, and the CPU.

#![allow(dead_code, reason = "each test file uses its own part of this module")]

use std::path::{Path, PathBuf};

use atelier_diffusion::{LoadError, Pipeline, Request};
use burn_flex::{Flex, FlexDevice};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tempfile::TempDir;

/// The committed golden set.
pub(crate) fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Loads a model directory on the CPU.
pub(crate) fn load(directory: &Path) -> Result<Pipeline<Flex>, LoadError> {
    Pipeline::load(directory, &FlexDevice, &mut |_| {})
}

/// The golden model, which draws nothing that a person would recognise.
pub(crate) fn golden_model() -> Pipeline<Flex> {
    load(&golden().join("pipeline")).expect("the golden model is whole")
}

/// A request that every model accepts.
pub(crate) fn request(prompt: &str) -> Request {
    Request { steps: 3, seed: 7, ..Request::new(prompt, 64, 48) }
}

/// Draws to the end; gives the PNG.
pub(crate) fn draw(model: &Pipeline<Flex>, request: &Request) -> Vec<u8> {
    let mut run = model.begin(request).expect("a valid request");
    while run.step().expect("a finite step").is_some() {}
    run.decode().expect("a finite picture").to_png()
}

/// A copy of the golden model that a test may damage.
pub(crate) struct Copy {
    folder: TempDir,
}

impl Copy {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        copy_folder(&golden().join("pipeline"), folder.path());
        Self { folder }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    pub(crate) fn load(&self) -> Result<Pipeline<Flex>, LoadError> {
        load(self.folder.path())
    }

    /// The text of the error that loading gives.
    pub(crate) fn refusal(&self) -> String {
        match self.load() {
            Ok(_) => panic!("the damaged model was loaded"),
            Err(error) => error.to_string(),
        }
    }

    /// Sets one key of a JSON file.
    pub(crate) fn set(&self, file: &str, key: &str, value: serde_json::Value) {
        let text = std::fs::read(self.path(file)).expect("a file of the copy");
        let mut json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        json[key] = value;
        std::fs::write(self.path(file), json.to_string()).expect("a file of the copy");
    }

    /// Rewrites the file that holds a tensor, with the tensor changed.
    pub(crate) fn change(&self, folder: &str, tensor: &str, change: impl FnOnce(&mut Stored)) {
        let (path, mut tensors) = self.file_of(folder, tensor);
        let stored = tensors.iter_mut().find(|stored| stored.name == tensor);
        change(stored.expect("file_of() found it"));
        write(&path, &tensors);
    }

    /// Takes a tensor out of its file.
    pub(crate) fn remove(&self, folder: &str, tensor: &str) {
        let (path, mut tensors) = self.file_of(folder, tensor);
        tensors.retain(|stored| stored.name != tensor);
        write(&path, &tensors);
    }

    /// Stores a tensor under other names instead of its own.
    pub(crate) fn rename(&self, folder: &str, tensor: &str, names: &[&str]) {
        let (path, mut tensors) = self.file_of(folder, tensor);
        let at = tensors.iter().position(|stored| stored.name == tensor);
        let stored = tensors.remove(at.expect("file_of() found it"));
        tensors.extend(names.iter().map(|name| Stored { name: (*name).into(), ..stored.clone() }));
        write(&path, &tensors);
    }

    /// Puts all shards of a folder into one file, with a prefix taken off every name.
    pub(crate) fn merge_without_prefix(&self, folder: &str, prefix: &str) {
        let shards = self.shards(folder);
        let mut tensors: Vec<Stored> = shards.iter().flat_map(|path| read(path)).collect();
        for stored in &mut tensors {
            stored.name = stored.name.strip_prefix(prefix).unwrap_or(&stored.name).into();
        }
        for shard in shards {
            std::fs::remove_file(shard).expect("a file of the copy");
        }
        write(&self.path(folder).join("model.safetensors"), &tensors);
    }

    /// All tensors of a folder.
    pub(crate) fn tensors(&self, folder: &str) -> Vec<Stored> {
        self.shards(folder).iter().flat_map(|path| read(path)).collect()
    }

    /// Takes all weights and the index out of a folder, and gives the path of a new file in it.
    pub(crate) fn cleared(&self, folder: &str, file: &str) -> PathBuf {
        for entry in std::fs::read_dir(self.path(folder)).expect("a folder of the copy") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if name.contains(".safetensors") {
                std::fs::remove_file(path).expect("a file of the copy");
            }
        }
        self.path(folder).join(file)
    }

    /// Puts these tensors into a folder, in one file, in place of all others.
    pub(crate) fn replace(&self, folder: &str, file: &str, tensors: &[Stored]) {
        write(&self.cleared(folder, file), tensors);
    }

    /// What the model draws of a short prompt.
    pub(crate) fn picture(&self) -> Vec<u8> {
        draw(&self.load().expect("the copy can be loaded"), &request("a fox"))
    }

    /// The files of a folder with weights, in order.
    pub(crate) fn shards(&self, folder: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path(folder)).expect("a folder of the copy");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let mut shards: Vec<_> =
            paths.filter(|path| path.extension().is_some_and(|e| e == "safetensors")).collect();
        shards.sort();
        shards
    }

    fn file_of(&self, folder: &str, tensor: &str) -> (PathBuf, Vec<Stored>) {
        let mut files = self.shards(folder).into_iter().map(|path| (read(&path), path));
        let holds = |tensors: &[Stored]| tensors.iter().any(|stored| stored.name == tensor);
        let found = files.find(|(tensors, _)| holds(tensors));
        let (tensors, path) = found.expect("one file holds the tensor");
        (path, tensors)
    }
}

/// A tensor as it lies in a file.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

fn read(path: &Path) -> Vec<Stored> {
    let bytes = std::fs::read(path).expect("a shard");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let stored = |(name, view): (String, TensorView)| Stored {
        name,
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    file.tensors().into_iter().map(stored).collect()
}

fn write(path: &Path, tensors: &[Stored]) {
    let views = tensors.iter().map(|stored| {
        let (dtype, shape) = (stored.dtype, stored.shape.clone());
        (&stored.name, TensorView::new(dtype, shape, &stored.bytes).expect("a tensor"))
    });
    safetensors::serialize_to_file(views, None, path).expect("a writable copy");
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("the golden model") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir(&target).expect("a folder of the copy");
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("a file of the copy");
        }
    }
}
