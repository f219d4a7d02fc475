"""Brain MRI phantoms: generated patients with four diagnoses, for demonstrations and tests without any data at hand."""

from lesion.data.phantom.folder import generate
from lesion.data.phantom.lesions import CLASSES
from lesion.data.phantom.patient import Patient, phantom_slice

__all__ = ["CLASSES", "Patient", "generate", "phantom_slice"]
