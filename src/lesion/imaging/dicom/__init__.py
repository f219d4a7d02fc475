"""DICOM files with one picture, as a viewer shows them: the optional extra ``lesion[dicom]``."""
