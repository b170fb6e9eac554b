//! What one replica is made of: one model, many models that are loaded when they are asked for, or several containers.

/// What a replica of a variant is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Composition {
    /// One model.
    #[default]
    Single,
    /// Many models, of which each request names one.
    Models(ModelsPlan),
    /// Several containers, started and replaced as a unit.
    Containers(ContainersPlan),
}

/// How many models share a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelsPlan {
    /// The memory that loaded models may take in one replica.
    pub memory_bytes: u64,
    /// Whether a model stays loaded when its request is answered.
    pub keeps: bool,
}

/// The containers of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainersPlan {
    /// The containers, at least two, in their order and with distinct names.
    pub containers: Vec<ContainerPlan>,
    /// Whether a request names the container that answers it; otherwise the answer of each is the request of the next.
    pub is_direct: bool,
}

/// One container of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPlan {
    /// Its name, unique in the replica.
    pub name: String,
    /// How many workers it runs, where it is no real container.
    pub workers: u32,
}

/// What a request may name beyond the variant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Targets {
    /// Nothing.
    #[default]
    Nothing,
    /// It must name a model.
    Models,
    /// It must name one of these containers.
    Containers(Vec<String>),
}

/// What is wrong with the model or the container that a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetProblem {
    /// A model is named, and the variant has only one.
    NotManyModels,
    /// No model is named, and the variant has many.
    NoModelNamed,
    /// A container is named, and requests to the variant do not choose one.
    NotDirect,
    /// No container is named, and requests to the variant must choose one.
    NoContainerNamed,
    /// The variant has no container of that name.
    NoSuchContainer(String),
}

impl Composition {
    /// How many processes or engines a replica has that are started and watched on their own.
    pub(crate) fn parts(&self) -> usize {
        match self {
            Composition::Containers(plan) => plan.containers.len(),
            Composition::Single | Composition::Models(_) => 1,
        }
    }

    pub(crate) fn targets(&self) -> Targets {
        match self {
            Composition::Models(_) => Targets::Models,
            Composition::Containers(plan) if plan.is_direct => {
                Targets::Containers(plan.containers.iter().map(|container| container.name.clone()).collect())
            }
            Composition::Single | Composition::Containers(_) => Targets::Nothing,
        }
    }
}

impl Targets {
    /// Whether a request that names these may go to the variant.
    pub(crate) fn check(&self, model: Option<&str>, container: Option<&str>) -> Result<(), TargetProblem> {
        match (self, model) {
            (Targets::Models, None) => return Err(TargetProblem::NoModelNamed),
            (Targets::Nothing | Targets::Containers(_), Some(_)) => return Err(TargetProblem::NotManyModels),
            _ => {}
        }
        match (self, container) {
            (Targets::Containers(names), Some(name)) if !names.iter().any(|known| known == name) => {
                Err(TargetProblem::NoSuchContainer(name.to_owned()))
            }
            (Targets::Containers(_), None) => Err(TargetProblem::NoContainerNamed),
            (Targets::Containers(_), Some(_)) | (_, None) => Ok(()),
            (_, Some(_)) => Err(TargetProblem::NotDirect),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_name_what_the_variant_has() {
        let containers = Targets::Containers(vec!["first".into(), "second".into()]);
        assert_eq!(Targets::Nothing.check(None, None), Ok(()));
        assert_eq!(Targets::Nothing.check(Some("m"), None), Err(TargetProblem::NotManyModels));
        assert_eq!(Targets::Nothing.check(None, Some("first")), Err(TargetProblem::NotDirect));
        assert_eq!(Targets::Models.check(Some("m"), None), Ok(()));
        assert_eq!(Targets::Models.check(None, None), Err(TargetProblem::NoModelNamed));
        assert_eq!(Targets::Models.check(Some("m"), Some("first")), Err(TargetProblem::NotDirect));
        assert_eq!(containers.check(None, Some("second")), Ok(()));
        assert_eq!(containers.check(None, None), Err(TargetProblem::NoContainerNamed));
        assert_eq!(containers.check(Some("m"), Some("first")), Err(TargetProblem::NotManyModels));
        let other = containers.check(None, Some("third"));
        assert_eq!(other, Err(TargetProblem::NoSuchContainer("third".into())));
    }
}
