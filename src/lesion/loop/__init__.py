"""The closed loop: uploads are taken in, models retrained, proved better, promoted and rolled back."""
