"""Handwritten digits by softmax regression, on PyTorch: nn.Linear, DataLoader, optim.SGD."""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset

import softmaxkit

images, labels = load_digits(return_X_y=True)
train_images, test_images, train_labels, test_labels = map(
    torch.as_tensor,
    train_test_split((images / 16).astype("float32"), labels, stratify=labels, random_state=0),
)

torch.manual_seed(0)
batches = DataLoader(TensorDataset(train_images, train_labels), batch_size=32, shuffle=True)
model = torch.nn.Linear(64, 10)
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

for _epoch in range(30):
    for batch_images, batch_labels in batches:
        optimizer.zero_grad()
        loss = softmaxkit.cross_entropy(model(batch_images), batch_labels)
        loss.backward()
        optimizer.step()

with torch.no_grad():
    accuracy = (model(test_images).argmax(dim=1) == test_labels).float().mean()
print(f"test accuracy {accuracy:.4f}")
