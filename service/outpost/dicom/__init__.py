"""What DICOM attributes mean, whoever asks: data sets and arrays enter, values and coded faults leave."""
