//! kubectl and Helm, as a user types them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use peerdist_e2e_net::shell;

/// Both, for one cluster, and the Helm before.
pub struct Commands {
    kubectl: PathBuf,
    helm: PathBuf,
    helm_of_old: PathBuf,
    kubeconfig: PathBuf,
}

impl Commands {
    /// Takes the programs that `cargo xtask e2e cluster` brings.
    ///
    /// # Errors
    /// When it did not start this.
    pub fn new(kubeconfig: &Path) -> Result<Self> {
        let program = |name: &str| {
            let path =
                std::env::var_os(name).with_context(|| format!("{name} is not set: run `cargo xtask e2e cluster`"))?;
            anyhow::Ok(PathBuf::from(path))
        };
        Ok(Self {
            kubectl: program("PEERDIST_E2E_KUBECTL")?,
            helm: program("PEERDIST_E2E_HELM")?,
            helm_of_old: program("PEERDIST_E2E_HELM_OF_OLD")?,
            kubeconfig: kubeconfig.to_owned(),
        })
    }

    /// Runs kubectl and gives what it prints.
    ///
    /// # Errors
    /// When it fails, with its words.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.run(&self.kubectl, arguments, "")
    }

    /// The same with a text as standard input.
    ///
    /// # Errors
    /// As [`Self::kubectl`].
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        self.run(&self.kubectl, arguments, input)
    }

    /// Runs Helm and gives what it prints.
    ///
    /// # Errors
    /// When it fails, with its words.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        self.run(&self.helm, arguments, "")
    }

    /// The same with Helm 3.
    ///
    /// # Errors
    /// As [`Self::helm`].
    pub fn helm_of_old(&self, arguments: &[&str]) -> Result<String> {
        self.run(&self.helm_of_old, arguments, "")
    }

    fn run(&self, program: &Path, arguments: &[&str], input: &str) -> Result<String> {
        let (program, kubeconfig) = (program.to_string_lossy(), self.kubeconfig.to_string_lossy());
        shell::run_with_input(&program, &[&["--kubeconfig", &kubeconfig], arguments].concat(), input)
    }
}
