"""A training of seconds, which nnU-Net finds where `nnUNet_extTrainer` names this folder."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerToy(nnUNetTrainer):  # noqa: N801 - nnU-Net finds trainers by names of this form
    """Two epochs of few iterations."""

    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 3, 60, 1
