//! What image URIs mean: the built-in catalogue and overlays.

use std::path::PathBuf;

use runner::catalogue::{Catalogue, Framework, Launcher, Source};

const ACCOUNT: &str = "763104351884.dkr.ecr.us-east-1.amazonaws.com";

/// Name, framework, Python and first package of an image's entry.
fn shown(catalogue: &Catalogue, image: &str) -> String {
    let profile = catalogue.resolve(image).unwrap();
    match profile.source {
        Source::Packages { python, packages, .. } => format!(
            "{} {} {} {}",
            profile.name,
            profile.framework,
            python.as_deref().unwrap_or("any"),
            packages.first().map_or("nothing", String::as_str)
        ),
        Source::Interpreter(path) => format!("{} {} {}", profile.name, profile.framework, path.display()),
        Source::Container(image) => format!("{} {} {:?}", profile.name, image.reference, image.pull),
    }
}

#[test]
fn the_images_of_the_sdk_are_known() {
    let catalogue = Catalogue::load(&[]).unwrap();
    for (image, expected) in [
        ("pytorch-training:2.0.0-gpu-py310", "pytorch pytorch 3.10 torch==2.0.*"),
        ("pytorch-training:2.0.0-cpu-py310", "pytorch pytorch 3.10 torch==2.0.*"),
        ("pytorch-inference:2.6.0-cpu-py312", "pytorch pytorch 3.12 torch==2.6.*"),
        ("pytorch-training:1.4.0-gpu-py3", "pytorch pytorch any torch==1.4.*"),
        ("pytorch-training:2.3.0-gpu-py311-cu121-ubuntu20.04-sagemaker", "pytorch pytorch 3.11 torch==2.3.*"),
        ("tensorflow-training:2.13.0-cpu-py310", "tensorflow tensorflow 3.10 tensorflow==2.13.*"),
        ("tensorflow-inference:2.13.0-cpu", "tensorflow tensorflow any tensorflow==2.13.*"),
        ("sagemaker-tensorflow-scriptmode:1.12.0-gpu-py36", "tensorflow tensorflow 3.6 tensorflow==1.12.*"),
        (
            "huggingface-pytorch-training:2.1.0-transformers4.36.0-gpu-py310-cu121-ubuntu20.04",
            "huggingface-pytorch huggingface 3.10 torch==2.1.*",
        ),
        (
            "huggingface-tensorflow-inference:2.6.3-transformers4.17.0-cpu-py38-ubuntu20.04",
            "huggingface-tensorflow huggingface 3.8 tensorflow==2.6.*",
        ),
        (
            "sagemaker-scikit-learn:0.23-1-cpu-py3",
            "sagemaker-scikit-learn-0 scikit-learn 3.8 scikit-learn==0.23.*",
        ),
        (
            "sagemaker-scikit-learn:0.20.0-cpu-py3",
            "sagemaker-scikit-learn-0 scikit-learn 3.8 scikit-learn==0.20.*",
        ),
        (
            "sagemaker-scikit-learn:1.2-1-cpu-py3",
            "sagemaker-scikit-learn scikit-learn 3.9 scikit-learn==1.2.*",
        ),
        (
            "sagemaker-scikit-learn:1.4-2-cpu-py3",
            "sagemaker-scikit-learn-new scikit-learn 3.10 scikit-learn==1.4.*",
        ),
        ("sagemaker-xgboost:1.0-1-cpu-py3", "sagemaker-xgboost-old xgboost 3.8 xgboost==1.0.*"),
        ("sagemaker-xgboost:1.7-1", "sagemaker-xgboost xgboost 3.10 xgboost==1.7.*"),
        ("sagemaker-xgboost:3.0-5", "sagemaker-xgboost xgboost 3.10 xgboost==3.0.*"),
        ("sagemaker-base-python-310:1.0", "sagemaker-base-python-repository python 3.10 boto3"),
        ("sagemaker-base-python:3.11", "sagemaker-base-python python 3.11 boto3"),
        ("sagemaker-distribution-prod:3.2.0-cpu", "sagemaker-distribution python 3.12 boto3"),
        ("sagemaker-distribution-prod:1.11.0-gpu", "sagemaker-distribution-1 python 3.10 boto3"),
    ] {
        assert_eq!(shown(&catalogue, &format!("{ACCOUNT}/{image}")), expected, "{image}");
    }
    assert_eq!(shown(&catalogue, "python:3.12-slim"), "python python 3.12 nothing");
    assert_eq!(shown(&catalogue, "docker.io/library/python:3"), "python python any nothing");
}

#[test]
fn a_missing_part_of_the_uri_leaves_the_version_open() {
    let folder = tempfile::tempdir().unwrap();
    let overlay = write(
        &folder,
        "a.toml",
        "[[image]]\nname = 'a'\npattern = 'mine(:(?P<version>.*))?'\npackages = ['six=={version}']\n",
    );
    let catalogue = Catalogue::load(&[overlay]).unwrap();
    assert_eq!(shown(&catalogue, "mine:1.16"), "a python any six==1.16");
    assert_eq!(shown(&catalogue, "mine"), "a python any six");
}

#[test]
fn overlays_win_the_later_the_earlier_asked() {
    let folder = tempfile::tempdir().unwrap();
    let first = write(
        &folder,
        "first.toml",
        "[[image]]\nname = 'first'\npattern = '.*pytorch.*'\n[[image]]\nname = 'mine'\npattern = 'mine:.*'\nlauncher = 'entrypoint'\nframework = 'xgboost'\n",
    );
    let second = write(
        &folder,
        "second.toml",
        "[[image]]\nname = 'second'\npattern = '.*pytorch-training:2.*'\nconda = 'envs/torch'\n\
         [[image]]\nname = 'third'\npattern = '.*pytorch-training:.*'\ninterpreter = '/opt/python/bin/python'\n",
    );
    let catalogue = Catalogue::load(&[first, second]).unwrap();
    let conda = folder.path().join("envs/torch/bin/python");
    let image = |tag: &str| format!("{ACCOUNT}/pytorch-{tag}");
    assert_eq!(
        shown(&catalogue, &image("training:2.0.0-gpu-py310")),
        format!("second python {}", conda.display())
    );
    assert_eq!(shown(&catalogue, &image("training:1.9.0-gpu-py38")), "third python /opt/python/bin/python");
    assert_eq!(shown(&catalogue, &image("inference:2.0.0-gpu-py310")), "first python any nothing");
    let mine = catalogue.resolve("mine:1").unwrap();
    assert_eq!((mine.launcher, mine.framework), (Launcher::Entrypoint, Framework::Xgboost));
    let names: Vec<&str> = catalogue.list().map(|(name, _)| name).take(4).collect();
    assert_eq!(names, ["second", "third", "first", "mine"]);
}

#[test]
fn an_unknown_image_is_named_with_the_way_to_add_it() {
    let catalogue = Catalogue::load(&[]).unwrap();
    for image in
        ["example.com/unknown:1", "", "xgboost", "811284229777.dkr.ecr.us-east-1.amazonaws.com/kmeans:1"]
    {
        let text = catalogue.resolve(image).unwrap_err().to_string();
        assert!(
            text.contains(&format!("{image:?}")) && text.contains("[[image]]") && text.contains("--images"),
            "{text}"
        );
    }
}

#[test]
fn a_missing_overlay_is_named() {
    let text = Catalogue::load(&[PathBuf::from("/nowhere/images.toml")]).unwrap_err().to_string();
    assert!(text.contains("/nowhere/images.toml cannot be read"), "{text}");
}

#[test]
fn the_overlay_of_the_client_tests_is_good_and_light() {
    let overlay =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/clients/light-images.toml"));
    let catalogue = Catalogue::load(&[overlay]).unwrap();
    for (image, expected) in [
        ("pytorch-training:2.0.0-gpu-py310", "light-pytorch pytorch any numpy"),
        ("sagemaker-scikit-learn:1.2-1-cpu-py3", "light-scikit-learn scikit-learn any numpy"),
        ("sagemaker-xgboost:1.7-1", "light-xgboost xgboost any numpy"),
    ] {
        assert_eq!(shown(&catalogue, &format!("{ACCOUNT}/{image}")), expected);
    }
}

fn write(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn an_entry_may_be_a_real_container() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    let text = "[[image]]\nname = 'mine'\npattern = '(.*/)?mine:(?P<tag>.+)'\nexecutor = 'oci'\n\
                image = 'localhost/mine:{tag}'\npull = 'never'\n\n\
                [[image]]\nname = 'all'\npattern = '.*/base:.*'\nexecutor = 'oci'\n";
    std::fs::write(&file, text).unwrap();
    let catalogue = Catalogue::load(&[file]).unwrap();
    assert_eq!(shown(&catalogue, "registry.example.com/mine:7"), "mine localhost/mine:7 Never");
    let own = "registry.example.com/base:1";
    assert_eq!(shown(&catalogue, own), format!("all {own} Missing"));
}
