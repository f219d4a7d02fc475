"""The file formats that Lesion decodes: one module per format, which checks the header and takes the metadata off."""
