"""Networks to list, and the entries of a listing that tests compare."""

from torch import nn

from cnnvis_fast.networks.listing import layers


def rows_of(model, **options):
    return {row.name: row for row in layers(model, **options)}


class Residual(nn.Module):
    """Two blocks with a shortcut, the first of which halves the picture."""

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.first = nn.Conv2d(inputs, outputs, 3, stride, 1)
            self.norm = nn.BatchNorm2d(outputs)
            self.relu = nn.ReLU(inplace=True)
            self.second = nn.Conv2d(outputs, outputs, 5, padding=2)
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)

        def forward(self, x):
            y = self.second(self.relu(self.norm(self.first(x))))
            y += self.shortcut(x)
            return self.relu(y)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.one = self.Block(4, 6, 2)
        self.two = self.Block(6, 6, 1)

    def forward(self, x):
        return self.two(self.one(self.stem(x)))


class Mixed(nn.Module):
    """A network that runs its modules out of order, names one conv3, and has one that never runs."""

    def __init__(self):
        super().__init__()
        self.late = nn.Conv2d(4, 2, 3, padding=1)
        self.conv3 = nn.Conv2d(3, 4, 3, padding=1)
        self.unused = nn.Conv2d(3, 9, 1)
        self.again = nn.ReLU()

    def forward(self, x):
        return self.again(self.late(self.again(self.conv3(x))))
